//! `/credits` and `/usage`. Operators see every account, callers their own.

use serde::{Deserialize, Serialize};
use tollgate_sdk::{
    host::{Balance, Ledger, LedgerError, UsageRow},
    http::{Problem, Request, Response, Role},
};

use crate::money::{Usd, dollars};

const MAX_BODY_BYTES: usize = 16 * 1024;
const DEFAULT_USAGE_ROWS: u32 = 100;
const MAX_USAGE_ROWS: u32 = 1_000;
const MAX_NAME_BYTES: usize = 128;

pub(crate) fn serve(request: Request, ledger: &impl Ledger) -> Response {
    let request_id = request.request_id().to_owned();
    answer(request, ledger).unwrap_or_else(|problem| problem.into_response(&request_id))
}

fn answer(request: Request, ledger: &impl Ledger) -> Result<Response, Problem> {
    let segments = request.segments();
    let segments: Vec<_> = segments.iter().map(String::as_str).collect();
    match (segments.as_slice(), request.method.as_str()) {
        (["credits"], "GET") => credits(&request, ledger),
        (["credits"], _) => Err(Problem::method_not_allowed("GET")),
        (["credits", account], "GET") => credits_of(&request, account, ledger),
        (["credits", account], "POST") => add_credit(request, account, ledger),
        (["credits", _], _) => Err(Problem::method_not_allowed("GET, POST")),
        (["usage"], "GET") => usage(&request, ledger),
        (["usage"], _) => Err(Problem::method_not_allowed("GET")),
        _ => Err(Problem::not_found()),
    }
}

fn credits(request: &Request, ledger: &impl Ledger) -> Result<Response, Problem> {
    let balances = match allowed_account(request, None)? {
        None => ledger.accounts(),
        Some(own) => ledger.balance(&own).map(|balance| vec![balance]),
    };
    let accounts = balances.map_err(failure)?.into_iter().map(Account::from).collect();
    Ok(Response::json(200, &Accounts { accounts }))
}

fn credits_of(request: &Request, account: &str, ledger: &impl Ledger) -> Result<Response, Problem> {
    allowed_account(request, Some(account))?;
    Ok(Response::json(200, &Account::from(ledger.balance(account).map_err(failure)?)))
}

fn add_credit(request: Request, account: &str, ledger: &impl Ledger) -> Result<Response, Problem> {
    Problem::unless_operator(&request)?;
    let body = request.body.read(MAX_BODY_BYTES)?;
    let credit: Credit =
        serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
    for (what, name) in [("id", credit.id.as_str()), ("account", account)] {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Problem::bad_request(format!("the {what} must have 1 to {MAX_NAME_BYTES} bytes")));
        }
    }
    let Usd(nano_usd) = Usd::parse(&credit.amount_usd).map_err(Problem::bad_request)?;
    let nano_usd = i64::try_from(nano_usd).unwrap_or(i64::MAX);
    let added = ledger.credit(&credit.id, account, nano_usd, &credit.note).map_err(failure)?;
    let account = Account::from(ledger.balance(account).map_err(failure)?);
    Ok(Response::json(if added { 201 } else { 200 }, &Credited { added, account }))
}

fn usage(request: &Request, ledger: &impl Ledger) -> Result<Response, Problem> {
    let account = allowed_account(request, request.parameter("account").as_deref())?;
    let limit = match request.parameter("limit") {
        None => DEFAULT_USAGE_ROWS,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_USAGE_ROWS).contains(limit))
            .ok_or_else(|| Problem::bad_request(format!("limit must be 1 to {MAX_USAGE_ROWS}")))?,
    };
    let rows = ledger.usage(account.as_deref(), limit).map_err(failure)?;
    Ok(Response::json(200, &Usage { usage: rows.into_iter().map(Row::from).collect() }))
}

/// The account that the asker may look at: the wanted one (`None` for all) to
/// an operator, its own to a caller.
fn allowed_account(request: &Request, wanted: Option<&str>) -> Result<Option<String>, Problem> {
    match request.role() {
        Role::Operator => Ok(wanted.map(str::to_owned)),
        Role::Caller if request.tenant().is_empty() => Err(Problem::forbidden("the caller has no account")),
        Role::Caller if wanted.is_none_or(|account| account == request.tenant()) => {
            Ok(Some(request.tenant().to_owned()))
        }
        Role::Caller => Err(Problem::forbidden("this is another tenant's account")),
        Role::Anonymous => Err(Problem::forbidden("this needs a key or the admin token")),
    }
}

fn failure(error: LedgerError) -> Problem {
    match error {
        LedgerError::Denied => Problem::forbidden("the plugin is not granted this use of the ledger"),
        LedgerError::Invalid => Problem::bad_request("the ledger refuses this amount or name"),
        LedgerError::Unavailable => Problem::unavailable("the ledger does not answer"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credit {
    /// Chosen by the client; repeating it changes nothing.
    id: String,
    amount_usd: String,
    #[serde(default)]
    note: String,
}

#[derive(Serialize)]
struct Accounts {
    accounts: Vec<Account>,
}

#[derive(Serialize)]
struct Credited {
    /// False if the id was used before.
    added: bool,
    #[serde(flatten)]
    account: Account,
}

#[derive(Serialize)]
struct Account {
    account: String,
    credited_usd: String,
    spent_usd: String,
    held_usd: String,
    available_usd: String,
}

impl From<Balance> for Account {
    fn from(balance: Balance) -> Self {
        let available = balance
            .credited_nano_usd
            .saturating_sub(balance.spent_nano_usd)
            .saturating_sub(balance.held_nano_usd);
        Self {
            account: balance.account,
            credited_usd: dollars(balance.credited_nano_usd),
            spent_usd: dollars(balance.spent_nano_usd),
            held_usd: dollars(balance.held_nano_usd),
            available_usd: dollars(available),
        }
    }
}

#[derive(Serialize)]
struct Usage {
    usage: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    request_id: String,
    unix_ms: u64,
    account: String,
    caller: String,
    route: String,
    model: String,
    provider: String,
    input_tokens: u64,
    output_tokens: u64,
    /// What the provider charges, null when the price is unknown.
    cost_usd: Option<String>,
    /// What the account paid.
    amount_usd: String,
    ending: String,
    attempts: u32,
}

impl From<UsageRow> for Row {
    fn from(row: UsageRow) -> Self {
        let usd = |nano: u64| dollars(i64::try_from(nano).unwrap_or(i64::MAX));
        Self {
            request_id: row.request_id,
            unix_ms: row.unix_ms,
            account: row.account,
            caller: row.caller,
            route: row.route,
            model: row.model,
            provider: row.provider,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cost_usd: row.cost_nano_usd.map(usd),
            amount_usd: usd(row.amount_nano_usd),
            ending: row.ending,
            attempts: row.attempts,
        }
    }
}

#[cfg(test)]
mod tests;
