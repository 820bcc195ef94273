//! The command line: what was asked for, and what it ends with.

use std::{ffi::OsString, io::Write as _, net::IpAddr, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

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
    /// Say which route a request would take and why, which came close, and what
    /// its chain and service would do. Nothing is sent.
    Explain(Explain),
    /// Report everything that is wrong with a configuration.
    Check {
        /// The configuration: a YAML file, or a directory of them.
        #[arg(value_name = "FILE|DIR")]
        config: PathBuf,
    },
}

#[derive(Args)]
struct Explain {
    /// The configuration: a YAML file, or a directory of them.
    #[arg(long, value_name = "FILE|DIR")]
    config: PathBuf,
    #[arg(value_name = "METHOD")]
    method: String,
    /// With scheme and host, as a client would write it.
    #[arg(value_name = "URL")]
    url: String,
    /// A header, as in `-H 'X-Version: 2'`; may be repeated.
    #[arg(short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Where the request comes in; default: the entrypoint that fits the URL.
    #[arg(long, value_name = "NAME")]
    entrypoint: Option<String>,
    /// The client's address.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client: IpAddr,
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
        Some(Command::Check { config }) => report(app::check(&config)),
        Some(Command::Explain(asked)) => report(explain(&asked)),
        Some(Command::Run { config }) => match app::run(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("{error:#}"));
                ExitCode::from(if matches!(error, StartError::Config(_)) { BAD_USAGE } else { FAILURE })
            }
        },
    }
}

fn explain(asked: &Explain) -> Result<String, StartError> {
    let request = app::Request::parse(&asked.method, &asked.url, &asked.header, asked.client)
        .map_err(StartError::Config)?;
    app::explain(&asked.config, &request, asked.entrypoint.as_deref())
}

fn report(outcome: Result<String, StartError>) -> ExitCode {
    match outcome {
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}");
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
