// Package report turns samples into medians, a table for people and a file for programs.
package report
