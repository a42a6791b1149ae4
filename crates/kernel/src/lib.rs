//! Every unsafe block and raw system call of Garth, behind safe types.
