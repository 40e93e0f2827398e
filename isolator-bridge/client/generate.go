package client

// The tools are those of the protobuf and gRPC projects: protoc 3.21 or later,
// protoc-gen-go and protoc-gen-go-grpc.
//go:generate protoc -I ../api --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative facts.proto isolator.proto
