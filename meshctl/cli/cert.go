package cli

import (
	"github.com/spf13/cobra"
)

func newCert(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Look at the certificates of the mesh",
		Args:  noSuchCommand,
		RunE:  help,
	}
	t := newTarget(s, cmd)
	cmd.AddCommand(newCertStatus(s, t))
	return cmd
}
