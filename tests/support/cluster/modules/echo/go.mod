module example.test/echo

go 1.26.0

tool example.test/echo
