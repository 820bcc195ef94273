//! The command line: what was asked for, and what it ends with.

use std::{ffi::OsString, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::app::{self, StartError};

/// Exit code for failures at run time.
const FAILURE: u8 = 1;
/// Exit code for a command line or a configuration that cannot be used.
const BAD_USAGE: u8 = 2;

/// Edge proxy and LLM gateway with hot-swappable WebAssembly plugins.
#[derive(Parser)]
#[command(name = "tollgate", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C; SIGHUP reloads.
    Run {
        /// The configuration: a YAML file, or a directory of them.
        #[arg(long, value_name = "FILE|DIR")]
        config: PathBuf,
    },
    /// Report everything that is wrong with a configuration.
    Check {
        /// The configuration: a YAML file, or a directory of them.
        #[arg(value_name = "FILE|DIR")]
        config: PathBuf,
    },
}

pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { BAD_USAGE } else { 0 });
        }
    };
    match arguments.command {
        None => {
            let _ = Arguments::command().print_help();
            ExitCode::SUCCESS
        }
        Some(Command::Check { config }) => check(&config),
        Some(Command::Run { config }) => match app::run(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("{error:#}"));
                ExitCode::from(if matches!(error, StartError::Config(_)) { BAD_USAGE } else { FAILURE })
            }
        },
    }
}

fn check(path: &std::path::Path) -> ExitCode {
    match app::check(path) {
        Ok(summary) => {
            let _ = writeln!(std::io::stdout(), "{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(BAD_USAGE)
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
