//! A filter that reads the ledger: refused at load unless `ledger` is granted.

use tollgate_sdk::{
    HttpFilter, Plugin, RequestHead, RequestVerdict, edit,
    host::{Gateway, Ledger},
};

struct Nosy;

impl Plugin for Nosy {
    fn configure(_config: &str) -> Result<Self, String> {
        Ok(Self)
    }
}

impl HttpFilter for Nosy {
    fn on_request(&self, _request: RequestHead) -> RequestVerdict {
        let accounts = Gateway.accounts().map_or(0, |accounts| accounts.len());
        RequestVerdict::Edit(vec![edit::set("x-accounts", &accounts.to_string())])
    }
}

tollgate_sdk::export!(Nosy: http_filter);
