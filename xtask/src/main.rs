//! Developer commands: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`.

mod bench;
mod demo;
mod shell;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--http ADDR] [--https ADDR] [--admin ADDR] [--debug]
          build everything, start local origins and the gateway, print what to try
  test    all checks: formatting, lints, tests, documentation, clients
  bench [--only http|https|h2|h2c|tls|llm]
          CPU per request and TLS handshake beside nginx and bare pingora, into
          benches/RESULTS.md; a part of it is only shown";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first().map(|(command, rest)| (command.as_str(), rest)) {
        Some(("demo", rest)) => demo::demo(rest),
        Some(("test", [])) => test::test(),
        Some(("bench", [])) => bench::bench(None),
        Some(("bench", [only, name])) if only == "--only" => bench::bench(Some(name)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
