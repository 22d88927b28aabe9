package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
)

// idleReady is what a load process prints when its idle connections stand.
const idleReady = "ready\n"

// RunLoad is the process of the load: it does the job given as JSON and prints
// its result. It holds idle connections until its standard input ends.
func RunLoad(arg string) error {
	var job load.Job
	if err := json.Unmarshal([]byte(arg), &job); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	result, err := load.Run(ctx, job, func() { fmt.Print(idleReady) })
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
