//! The store of several nodes: every decision is one Lua script, with the
//! server's time, under a deadline. Keys of one account share a hash tag.

use std::{collections::HashSet, future::Future, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use redis::{
    IntoConnectionInfo, RedisError, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};

use super::{
    Balance, Denial, Hold, HoldOutcome, HoldState, Result, SealedSecret, SettleOutcome, Settlement, Store,
    StoreError, UsageRow, check_credit, clock::millis,
};
use crate::config::Secret;

mod keys;
mod scripts;
#[cfg(test)]
pub(super) mod server;
#[cfg(test)]
mod tests;

use keys::{ACCOUNTS, AccountKeys, SECRETS, ValueKeys};
use scripts::Scripts;

/// For how long a repeated settlement, or a late one, is recognised.
const REMEMBERED_MS: i64 = 24 * 60 * 60 * 1000;
const VANISHED: Duration = Duration::from_secs(5);
/// Accounts of which this node knows that they are in the list of accounts.
const KNOWN: usize = 65_536;
/// Commands in one round trip where many accounts are asked.
const PAGE: usize = 128;

pub(super) struct RedisStore {
    connection: ConnectionManager,
    timeout: Duration,
    scripts: Scripts,
    listed: Mutex<HashSet<String>>,
}

impl RedisStore {
    /// Connects at the first operation, and again by itself whenever the
    /// connection is lost.
    pub(super) fn open(url: &Secret, timeout: Duration) -> Result<Self> {
        // The error could quote the URL, and with it the password.
        let invalid = |_: RedisError| StoreError::Invalid("the redis url cannot be used");
        // A peer that vanished without a word is given up, and dialled again.
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(VANISHED);
        let address = url.expose().into_connection_info().map_err(invalid)?.set_tcp_settings(tcp);
        let client = redis::Client::open(address).map_err(invalid)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout.max(Duration::from_secs(1))))
            // Every operation has its own deadline, see `within`.
            .set_response_timeout(None)
            .set_max_delay(Duration::from_secs(1))
            .set_pipeline_buffer_size(1024);
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(invalid)?;
        Ok(Self { connection, timeout, scripts: Scripts::new(), listed: Mutex::default() })
    }

    async fn within<T>(&self, operation: impl Future<Output = RedisResult<T>> + Send) -> Result<T> {
        match tokio::time::timeout(self.timeout, operation).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// Puts the account in the list of accounts, before anything is booked on
    /// it: a crash in between lists an account without bookings, which
    /// `accounts` leaves out. Not part of the scripts, because the list has no
    /// account's hash tag.
    async fn list_account(&self, account: &str) -> Result<()> {
        if self.listed.lock().contains(account) {
            return Ok(());
        }
        let mut connection = self.connection.clone();
        let mut add = redis::cmd("SADD");
        add.arg(ACCOUNTS).arg(account);
        let () = self.within(add.query_async(&mut connection)).await?;
        let mut listed = self.listed.lock();
        if listed.len() >= KNOWN {
            listed.clear();
        }
        listed.insert(account.to_owned());
        Ok(())
    }

    async fn account_names(&self) -> Result<Vec<String>> {
        let mut connection = self.connection.clone();
        let mut members = redis::cmd("SMEMBERS");
        let mut names: Vec<String> = self.within(members.arg(ACCOUNTS).query_async(&mut connection)).await?;
        names.sort_unstable();
        Ok(names)
    }

    async fn expire_account(&self, account: &str) -> Result<u64> {
        let keys = AccountKeys::new(account);
        let mut connection = self.connection.clone();
        let mut script = self.scripts.expire.key(keys.balance());
        script.key(keys.leases()).arg(REMEMBERED_MS);
        let mut freed = 0;
        loop {
            let some: u64 = self.within(script.invoke_async(&mut connection)).await?;
            freed += some;
            // The script frees at most 100, so that it never blocks the server for long.
            if some < 100 {
                return Ok(freed);
            }
        }
    }

    async fn swap(
        &self,
        keys: &ValueKeys,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
        ttl: i64,
    ) -> Result<bool> {
        let mut connection = self.connection.clone();
        let mut script = self.scripts.kv_swap.key(&keys.value);
        script.key(&keys.index).arg(key).arg(u8::from(old.is_some())).arg(old.unwrap_or_default());
        script.arg(new).arg(ttl);
        self.within(script.invoke_async(&mut connection)).await
    }

    /// The newest rows of some accounts, each with its stream id.
    async fn rows(&self, accounts: &[String], limit: usize) -> Result<Vec<((u64, u64), UsageRow)>> {
        let mut connection = self.connection.clone();
        let mut pipeline = redis::pipe();
        for account in accounts {
            pipeline.cmd("XREVRANGE").arg(AccountKeys::new(account).usage()).arg("+").arg("-");
            pipeline.arg("COUNT").arg(limit);
        }
        let streams: Vec<Vec<StreamEntry>> = self.within(pipeline.query_async(&mut connection)).await?;
        streams.into_iter().flatten().map(stream_row).collect()
    }
}

/// Stream id, then field names and values.
type StreamEntry = (String, Vec<Vec<u8>>);

fn stream_row((id, fields): StreamEntry) -> Result<((u64, u64), UsageRow)> {
    let broken = || StoreError::Corrupt(format!("usage entry {id}"));
    let (ms, seq) = id.split_once('-').ok_or_else(broken)?;
    let order = (ms.parse().map_err(|_| broken())?, seq.parse().map_err(|_| broken())?);
    let row = fields.get(1).ok_or_else(broken)?;
    Ok((order, UsageRow::from_json(row)?))
}

fn ttl_ms(ttl: Option<Duration>) -> i64 {
    ttl.map_or(0, millis)
}

#[async_trait]
impl Store for RedisStore {
    async fn kv_get(&self, ns: &str, key: &str) -> Result<Option<Bytes>> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("GET");
        command.arg(ValueKeys::new(ns, key).value);
        let value: Option<Vec<u8>> = self.within(command.query_async(&mut connection)).await?;
        Ok(value.map(Bytes::from))
    }

    async fn kv_set(&self, ns: &str, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let keys = ValueKeys::new(ns, key);
        let mut connection = self.connection.clone();
        let mut script = self.scripts.kv_set.key(&keys.value);
        script.key(&keys.index).arg(key).arg(value).arg(ttl_ms(ttl));
        self.within(script.invoke_async(&mut connection)).await
    }

    async fn kv_delete(&self, ns: &str, key: &str) -> Result<()> {
        let keys = ValueKeys::new(ns, key);
        let mut connection = self.connection.clone();
        let mut both = redis::pipe();
        both.atomic().cmd("DEL").arg(&keys.value).ignore().cmd("ZREM").arg(&keys.index).arg(key).ignore();
        self.within(both.query_async(&mut connection)).await
    }

    async fn kv_add(&self, ns: &str, key: &str, delta: i64, ttl: Option<Duration>) -> Result<i64> {
        let keys = ValueKeys::new(ns, key);
        let mut connection = self.connection.clone();
        let mut script = self.scripts.kv_add.key(&keys.value);
        script.key(&keys.index).arg(key).arg(delta).arg(ttl_ms(ttl));
        let sum: Option<i64> = self.within(script.invoke_async(&mut connection)).await?;
        sum.ok_or(StoreError::NotANumber)
    }

    async fn kv_compare_and_swap(
        &self,
        ns: &str,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        self.swap(&ValueKeys::new(ns, key), key, old, new, ttl_ms(ttl)).await
    }

    async fn kv_keys(&self, ns: &str, prefix: &str, limit: usize) -> Result<Vec<String>> {
        let keys = ValueKeys::new(ns, "");
        let mut connection = self.connection.clone();
        let mut script = self.scripts.kv_keys.key(&keys.index);
        script.arg(prefix).arg(limit).arg(&keys.value);
        self.within(script.invoke_async(&mut connection)).await
    }

    async fn credit(&self, id: &str, account: &str, nano_usd: i64, note: &str) -> Result<bool> {
        check_credit(id, account, nano_usd)?;
        self.list_account(account).await?;
        let keys = AccountKeys::new(account);
        let mut connection = self.connection.clone();
        let mut script = self.scripts.credit.key(keys.balance());
        script.key(keys.credits()).arg(id).arg(nano_usd).arg(note);
        self.within(script.invoke_async(&mut connection)).await
    }

    async fn hold(&self, hold: &Hold) -> Result<HoldOutcome> {
        hold.check()?;
        self.list_account(&hold.account).await?;
        let keys = AccountKeys::new(&hold.account);
        let mut connection = self.connection.clone();
        let mut script = self.scripts.hold.key(keys.balance());
        script.key(keys.hold(&hold.id)).key(keys.leases());
        script.arg(&hold.id).arg(hold.amount).arg(millis(hold.lease)).arg(u8::from(hold.prepaid));
        for cap in &hold.caps {
            script.key(keys.cap(&cap.name)).arg(&cap.name).arg(cap.limit).arg(millis(cap.ttl));
        }
        let answer: Vec<String> = self.within(script.invoke_async(&mut connection)).await?;
        hold_outcome(hold, &answer)
    }

    async fn renew(&self, id: &str, account: &str, lease: Duration) -> Result<bool> {
        let keys = AccountKeys::new(account);
        let mut connection = self.connection.clone();
        let mut script = self.scripts.renew.key(keys.hold(id));
        script.key(keys.leases()).arg(id).arg(millis(lease));
        self.within(script.invoke_async(&mut connection)).await
    }

    async fn settle(&self, settlement: &Settlement) -> Result<SettleOutcome> {
        settlement.check()?;
        let row = settlement.row_json()?;
        self.list_account(&settlement.account).await?;
        let keys = AccountKeys::new(&settlement.account);
        let mut connection = self.connection.clone();
        let mut script = self.scripts.settle.key(keys.balance());
        script.key(keys.hold(&settlement.id)).key(keys.leases()).key(keys.usage());
        script.arg(&settlement.id).arg(settlement.amount).arg(REMEMBERED_MS).arg(row);
        let answer: String = self.within(script.invoke_async(&mut connection)).await?;
        match answer.as_str() {
            "BOOKED" => Ok(SettleOutcome::Booked),
            "DUPLICATE" => Ok(SettleOutcome::Duplicate),
            _ => Err(StoreError::Corrupt(format!("settle answered {answer}"))),
        }
    }

    async fn expire_holds(&self) -> Result<u64> {
        let mut freed = 0;
        for page in self.account_names().await?.chunks(PAGE) {
            let sweeps = page.iter().map(|account| self.expire_account(account));
            for swept in futures_util::future::join_all(sweeps).await {
                freed += swept?;
            }
        }
        Ok(freed)
    }

    async fn balance(&self, account: &str) -> Result<Balance> {
        let balances = self.balances(&[account.to_owned()]).await?;
        balances.into_iter().next().ok_or_else(|| StoreError::Corrupt("no balance in the answer".to_owned()))
    }

    async fn accounts(&self) -> Result<Vec<Balance>> {
        let mut all = Vec::new();
        for page in self.account_names().await?.chunks(PAGE) {
            all.extend(self.balances(page).await?);
        }
        all.retain(|balance| (balance.credited, balance.spent, balance.held) != (0, 0, 0));
        Ok(all)
    }

    /// Over all accounts this asks each of them, a page at a time.
    async fn usage(&self, account: Option<&str>, limit: usize) -> Result<Vec<UsageRow>> {
        let accounts = match account {
            Some(account) => vec![account.to_owned()],
            None => self.account_names().await?,
        };
        let mut newest = Vec::new();
        for page in accounts.chunks(PAGE) {
            newest.extend(self.rows(page, limit).await?);
            newest.sort_by(|(a, _), (b, _)| b.cmp(a));
            newest.truncate(limit);
        }
        Ok(newest.into_iter().map(|(_, row)| row).collect())
    }

    async fn secret_put(&self, sealed: &SealedSecret) -> Result<()> {
        let json = serde_json::to_vec(sealed).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("HSET");
        command.arg(SECRETS).arg(&sealed.handle).arg(json);
        self.within(command.query_async(&mut connection)).await
    }

    async fn secret_remove(&self, handle: &str) -> Result<bool> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("HDEL");
        self.within(command.arg(SECRETS).arg(handle).query_async(&mut connection)).await
    }

    async fn secret_list(&self) -> Result<Vec<SealedSecret>> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("HVALS");
        let all: Vec<Vec<u8>> = self.within(command.arg(SECRETS).query_async(&mut connection)).await?;
        let parse = |json: &Vec<u8>| {
            serde_json::from_slice(json)
                .map_err(|error| StoreError::Corrupt(format!("sealed secret: {error}")))
        };
        let mut secrets: Vec<SealedSecret> = all.iter().map(parse).collect::<Result<_>>()?;
        secrets.sort_unstable_by(|a, b| a.handle.cmp(&b.handle));
        Ok(secrets)
    }

    async fn ping(&self) -> Result<()> {
        let mut connection = self.connection.clone();
        let _: String = self.within(redis::cmd("PING").query_async(&mut connection)).await?;
        Ok(())
    }

    /// Nothing is queued here.
    async fn close(&self) {}
}

impl RedisStore {
    async fn balances(&self, accounts: &[String]) -> Result<Vec<Balance>> {
        let mut connection = self.connection.clone();
        let mut pipeline = redis::pipe();
        for account in accounts {
            pipeline.cmd("HMGET").arg(AccountKeys::new(account).balance());
            pipeline.arg("credited").arg("spent").arg("held");
        }
        let sums: Vec<[Option<i64>; 3]> = self.within(pipeline.query_async(&mut connection)).await?;
        let balance = |(account, sums): (&String, [Option<i64>; 3])| {
            let [credited, spent, held] = sums.map(Option::unwrap_or_default);
            Balance { account: account.clone(), credited, spent, held }
        };
        Ok(accounts.iter().zip(sums).map(balance).collect())
    }
}

fn hold_outcome(hold: &Hold, answer: &[String]) -> Result<HoldOutcome> {
    let broken = || StoreError::Corrupt(format!("hold answered {answer:?}"));
    let words: Vec<&str> = answer.iter().map(String::as_str).collect();
    match words[..] {
        ["HELD"] => Ok(HoldOutcome::Held),
        ["EXISTS", "held"] => Ok(HoldOutcome::Exists(HoldState::Held)),
        ["EXISTS", "settled"] => Ok(HoldOutcome::Exists(HoldState::Settled)),
        ["EXISTS", "expired"] => Ok(HoldOutcome::Exists(HoldState::Expired)),
        ["DENIED", index, limit, spent, held] => {
            let number = |text: &str| text.parse::<i64>().map_err(|_| broken());
            let what = match index.parse::<usize>().map_err(|_| broken())? {
                0 => Denial::Balance,
                nth => Denial::Cap(hold.caps.get(nth - 1).ok_or_else(broken)?.name.clone()),
            };
            let used = number(spent)?.saturating_add(number(held)?);
            Ok(HoldOutcome::Denied { what, limit: number(limit)?, used })
        }
        _ => Err(broken()),
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() { Self::TimedOut } else { Self::Unavailable(error.to_string()) }
    }
}
