// Command kstatus reads Kubernetes objects as JSON, one per line, and prints the result of the kstatus library for each:
// the status, a tab and the message.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, readErr := lines.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			if err := evaluate([]byte(line)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		if readErr != nil {
			return
		}
	}
}

func evaluate(line []byte) error {
	object := &unstructured.Unstructured{}
	// UnmarshalJSON keeps integers as int64, which kstatus needs to compare generations.
	if err := object.UnmarshalJSON(line); err != nil {
		return fmt.Errorf("not an object: %w", err)
	}
	result, err := status.Compute(object)
	if err != nil {
		return fmt.Errorf("%s/%s: %w", object.GetKind(), object.GetName(), err)
	}
	fmt.Printf("%s\t%s\n", result.Status, result.Message)
	return nil
}
