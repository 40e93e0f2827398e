// Command rclone is rclone with nothing but its volume plugin for Docker: a
// plugin that this project did not write, for its tests.
package main

import (
	_ "github.com/rclone/rclone/backend/local" // the storage behind the volumes
	"github.com/rclone/rclone/cmd"
	_ "github.com/rclone/rclone/cmd/mount"        // FUSE
	_ "github.com/rclone/rclone/cmd/serve/docker" // the plugin
)

func main() { cmd.Main() }
