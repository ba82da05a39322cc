// Flux's source-controller, whose CRDs kustomize-controller watches. Nothing of it is built or imported, so
// `go mod tidy` would drop it.
module rolecall.dev/tests/cluster/tools/source

go 1.26.0

require github.com/fluxcd/source-controller v1.9.6
