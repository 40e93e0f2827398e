// Package access decides who may talk to the bridge and how much of its time
// and memory a peer can take: credentials, sizes, numbers, and how long a
// request may take to arrive. What is refused is counted by reason.
package access
