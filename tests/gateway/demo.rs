//! `cargo xtask demo`: the commands that it prints work as printed.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// A first build may be part of it.
const PATIENCE: Duration = Duration::from_secs(1500);

struct Demo {
    child: Child,
    commands: Vec<String>,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Demo {
    /// Returns when everything is running.
    async fn start() -> Self {
        let mut child = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["run", "--quiet", "--package", "xtask", "--", "demo", "--debug"])
            .args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo runs");
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let commands = tokio::time::timeout(PATIENCE, commands(&mut output)).await.expect("the demo starts");
        Self { child, commands, _output: output }
    }

    fn interrupt(&self) {
        if let Some(id) = self.child.id() {
            let _ = std::process::Command::new("sh").args(["-c", &format!("kill -INT {id}")]).status();
        }
    }
}

/// A failing test must not leave a gateway behind.
impl Drop for Demo {
    fn drop(&mut self) {
        self.interrupt();
    }
}

async fn commands(output: &mut Lines<BufReader<ChildStdout>>) -> Vec<String> {
    let mut commands = Vec::new();
    while let Some(line) = output.next_line().await.expect("text") {
        if line.starts_with("curl ") || line.starts_with('(') {
            commands.push(line);
        } else if line.starts_with("Ctrl-C") {
            break;
        }
    }
    commands
}

async fn shell(command: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", command])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .await
        .expect("bash runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{command}\n{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn the_six_printed_commands_work_and_ctrl_c_ends_with_0() {
    let mut demo = Demo::start().await;
    assert_eq!(demo.commands.len(), 6, "{:?}", demo.commands);

    let expected: [&[&str]; 6] = [
        &[r#""name":"#, "/echo/hello"],
        &[r#""name":"#, "/echo/hello"],
        &["chat.completion", "OpenAI-style"],
        &["data: {", "chat.completion.chunk", "data: [DONE]"],
        &["demo-flaky", "demo-anthropic", "available_usd"],
        &["100 200", r#""version":"#],
    ];
    for (command, parts) in demo.commands.clone().iter().zip(expected) {
        let answer = shell(command).await;
        for part in parts {
            assert!(answer.contains(part), "{command}\ndoes not answer {part} but\n{answer}");
        }
    }

    demo.interrupt();
    let status = tokio::time::timeout(Duration::from_secs(60), demo.child.wait()).await;
    assert_eq!(status.expect("it ends").expect("a status").code(), Some(0));
}
