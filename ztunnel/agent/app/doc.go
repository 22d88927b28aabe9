// Package app puts the node agent together: settings, the order of start and
// end, and nothing else.
//
// At the start the pods of before come first: their rules are in force before a
// proxy may connect or a request is taken. At the end rules stay: pods remain
// captured, and without an agent nothing can take them out.
package app
