//! HTTP: parse, call the engine, map the result.
#![forbid(unsafe_code)]
