//! dns-01 by somebody else's hand: a command or a webhook sets and removes the
//! TXT record.

use std::{process::Stdio, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use serde_json::json;
use tokio::{process::Command, time::timeout};

use super::AcmeError;
use crate::{
    config::{Secret, tls::DnsHook},
    upstream::Web,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Present,
    Cleanup,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Cleanup => "cleanup",
        }
    }
}

/// Asks the hook and waits for its answer, at most for its timeout.
pub(super) async fn call(
    hook: &DnsHook,
    web: &Web,
    action: Action,
    fqdn: &str,
    value: &str,
) -> Result<(), AcmeError> {
    let outcome = match hook {
        DnsHook::Exec { command, timeout } => exec(command, *timeout, [action.word(), fqdn, value]).await,
        DnsHook::Webhook { url, bearer, timeout } => {
            let body = json!({ "action": action.word(), "fqdn": fqdn, "value": value });
            webhook(web, url, bearer.as_ref(), *timeout, body.to_string().into()).await
        }
    };
    outcome.map_err(|reason| AcmeError::Hook(format!("{} {fqdn}: {reason}", action.word())))
}

/// Its output is not shown: it may tell credentials.
async fn exec(command: &[String], patience: Duration, arguments: [&str; 3]) -> Result<(), String> {
    let [program, fixed @ ..] = command else { return Err("no command".to_owned()) };
    let mut child = Command::new(program);
    child.args(fixed).args(arguments);
    child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match timeout(patience, child.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("the command ended with {status}")),
        Ok(Err(error)) => Err(format!("the command does not run: {error}")),
        Err(_) => Err("the command took too long and was killed".to_owned()),
    }
}

async fn webhook(
    web: &Web,
    url: &str,
    bearer: Option<&Secret>,
    patience: Duration,
    body: Bytes,
) -> Result<(), String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(bearer) = bearer {
        let value = HeaderValue::try_from(format!("Bearer {}", bearer.expose()));
        let mut value = value.map_err(|_| "the bearer token cannot be a header".to_owned())?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request.body(body).map_err(|error| error.to_string())?;
    let answer = web.send(request, patience).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(format!("the webhook answered {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str, timeout: Duration) -> DnsHook {
        let command = ["sh", "-c", text, "hook"].map(str::to_owned).to_vec();
        DnsHook::Exec { command, timeout }
    }

    #[tokio::test]
    async fn a_command_gets_action_name_and_value_and_decides_by_its_status() {
        let directory = tempfile::tempdir().unwrap();
        let seen = directory.path().join("seen");
        let web = Web::new(None).unwrap();
        let hook = script(&format!("echo \"$1 $2 $3\" >> {}", seen.display()), Duration::from_secs(20));
        for action in [Action::Present, Action::Cleanup] {
            call(&hook, &web, action, "_acme-challenge.a.test", "value").await.unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(seen).unwrap(),
            "present _acme-challenge.a.test value\ncleanup _acme-challenge.a.test value\n"
        );

        let failing = script("echo secret >&2; exit 3", Duration::from_secs(20));
        let error = call(&failing, &web, Action::Present, "x", "y").await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && !error.contains("secret"), "{error}");
        let endless = script("sleep 60", Duration::from_millis(50));
        let error = call(&endless, &web, Action::Present, "x", "y").await.unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
    }
}
