//! argv in, exit code out.

use std::process::ExitCode;

// glibc's allocator keeps what many short connections freed; see pingora's
// memory-growth reports. mimalloc returns it and is faster across threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate::cli::run(std::env::args_os())
}
