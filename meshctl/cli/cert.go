package cli

import (
	"github.com/spf13/cobra"
)

func newCert(s *streams) *cobra.Command {
	flags := &localFlags{}
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Look at the certificates of the mesh",
		Args:  noSuchCommand,
		RunE:  help,
	}
	flags.add(cmd)
	cmd.AddCommand(newCertStatus(s, flags))
	return cmd
}
