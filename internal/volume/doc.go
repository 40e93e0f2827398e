// Package volume holds the words that dvdcli, the isolator-bridge and the
// volume drivers share: what a volume is, what a driver can be asked, how a
// driver is found, what a mount table tells, and how things fail.
//
// It does no I/O and imports only the standard library. The engine works on
// these types alone and does not know which kind of driver (Docker plugin, CSI,
// FlexVolume) it drives.
package volume
