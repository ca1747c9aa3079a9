module example.test/pause

go 1.26.0

tool example.test/pause
