// What Knative's webhooks make of a Knative Service: reads one as JSON, sets Knative's defaults and validates it with the
// configuration that a fresh Knative has. Prints what is wrong and exits 1, or 2 where it is no Knative Service.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

func main() {
	service := servingv1.Service{}
	decoder := json.NewDecoder(os.Stdin)
	// As Knative's webhooks do.
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&service); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if service.GroupVersionKind() != servingv1.SchemeGroupVersion.WithKind("Service") {
		fmt.Fprintf(os.Stderr, "this is a %s, not a Knative Service\n", service.GroupVersionKind())
		os.Exit(2)
	}
	ctx := apis.WithinCreate(context.Background())
	service.SetDefaults(ctx)
	if errs := service.Validate(ctx).Filter(apis.ErrorLevel); errs != nil {
		fmt.Fprintln(os.Stderr, errs)
		os.Exit(1)
	}
}
