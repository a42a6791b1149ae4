//! What a guest boots from: a kernel and a first root filesystem with the agent in it.
