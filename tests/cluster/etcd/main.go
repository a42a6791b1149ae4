// etcd, of a pinned version. The module of its own command cannot be installed: it replaces parts of itself by folders.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
