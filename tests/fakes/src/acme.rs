//! A small certificate authority that speaks ACME (RFC 8555, RFC 9773). It
//! verifies what it is sent, looks at the challenge ports, and really issues.

mod jws;
mod validation;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use self::jws::{Signed, Signer};
use crate::{
    Authority,
    serve::{self, Body, Listening},
};

/// Listens without TLS on the loopback address.
pub struct AcmeServer {
    listening: Listening,
    state: Arc<State>,
}

/// An order that the authority accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub names: Vec<String>,
    /// The certificate that the client said it replaces.
    pub replaces: Option<String>,
}

/// Why an order is refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: u16,
    /// Without `urn:ietf:params:acme:error:`.
    pub kind: &'static str,
    pub detail: &'static str,
    /// Seconds.
    pub retry_after: Option<u64>,
}

struct State {
    authority: Authority,
    book: Mutex<Book>,
}

/// Everything that changes.
struct Book {
    base: String,
    nonces: BTreeSet<String>,
    /// JWK and whether it came with an external account, by position.
    accounts: Vec<Value>,
    orders: Vec<Order>,
    authorizations: Vec<Authorization>,
    certificates: Vec<String>,
    count: u64,
    http_ports: Vec<SocketAddr>,
    tls_ports: Vec<SocketAddr>,
    txt: BTreeMap<String, BTreeSet<String>>,
    txt_files: Option<PathBuf>,
    hook_calls: Vec<Value>,
    life: Duration,
    age: Duration,
    refusal: Option<Refusal>,
    renewals: Option<bool>,
    external_account: Option<(String, Vec<u8>)>,
    validations: u64,
}

struct Order {
    placed: Placed,
    authorizations: Vec<usize>,
    status: &'static str,
    certificate: Option<usize>,
}

struct Authorization {
    name: String,
    wildcard: bool,
    token: String,
    status: &'static str,
    /// The challenge that was tried and why it failed.
    failed: Option<(&'static str, String)>,
}

/// A finished answer, or a problem document's status, kind and detail.
type Answered = Result<Response<Body>, (u16, &'static str, String)>;

const CHALLENGES: [&str; 3] = ["http-01", "tls-alpn-01", "dns-01"];

impl AcmeServer {
    /// Issues certificates for 90 days; offers no renewal information.
    pub async fn start() -> Self {
        let state = Arc::new(State {
            authority: Authority::new().expect("an authority can be made"),
            book: Mutex::new(Book {
                base: String::new(),
                nonces: BTreeSet::new(),
                accounts: Vec::new(),
                orders: Vec::new(),
                authorizations: Vec::new(),
                certificates: Vec::new(),
                count: 0,
                http_ports: Vec::new(),
                tls_ports: Vec::new(),
                txt: BTreeMap::new(),
                txt_files: None,
                hook_calls: Vec::new(),
                life: Duration::from_secs(90 * 86_400),
                age: Duration::ZERO,
                refusal: None,
                renewals: None,
                external_account: None,
                validations: 0,
            }),
        });
        let shared = state.clone();
        let listening = serve::serve(move |request| answer(shared.clone(), request)).await;
        state.book().base = format!("http://{}", listening.address);
        Self { listening, state }
    }

    pub fn directory(&self) -> String {
        format!("http://{}/directory", self.listening.address)
    }

    /// What clients of the issued certificates must trust.
    pub fn authority_pem(&self) -> &str {
        self.state.authority.pem()
    }

    /// Where http-01 is looked for instead of port 80 of the name: at each of
    /// these. Until this is said, a validation waits.
    pub fn look_for_http_at(&self, addresses: &[SocketAddr]) {
        self.state.book().http_ports = addresses.to_vec();
    }

    /// The same for tls-alpn-01 and port 443.
    pub fn look_for_tls_at(&self, addresses: &[SocketAddr]) {
        self.state.book().tls_ports = addresses.to_vec();
    }

    /// dns-01 reads the values of a record from a file of its name in here, too.
    pub fn look_for_txt_in(&self, directory: &Path) {
        self.state.book().txt_files = Some(directory.to_owned());
    }

    /// Takes `{"action","fqdn","value"}` and changes what dns-01 sees.
    pub fn txt_hook(&self) -> String {
        format!("http://{}/txt", self.listening.address)
    }

    /// What the hook was sent, with the header `authorization`.
    pub fn hook_calls(&self) -> Vec<Value> {
        self.state.book().hook_calls.clone()
    }

    /// From now on certificates began so long ago and end so much later than now.
    pub fn issue_for(&self, age: Duration, left: Duration) {
        let mut book = self.state.book();
        (book.age, book.life) = (age, left);
    }

    /// Refuses new orders from now on.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.state.book().refusal = refusal;
    }

    /// Offers renewal information: the first certificate is to be renewed at
    /// once if `first_at_once`, all others late in their life.
    pub fn advise(&self, first_at_once: bool) {
        self.state.book().renewals = Some(first_at_once);
    }

    /// Accepts new accounts only with this binding.
    pub fn require_external_account(&self, id: &str, hmac_key: &[u8]) {
        self.state.book().external_account = Some((id.to_owned(), hmac_key.to_vec()));
    }

    pub fn orders(&self) -> Vec<Placed> {
        self.state.book().orders.iter().map(|order| order.placed.clone()).collect()
    }

    pub fn accounts(&self) -> usize {
        self.state.book().accounts.len()
    }

    pub fn certificates(&self) -> usize {
        self.state.book().certificates.len()
    }

    /// Challenges that were looked at.
    pub fn validations(&self) -> u64 {
        self.state.book().validations
    }
}

impl State {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().expect("no test panics while it holds the book")
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path().to_owned();
    if path == "/txt" {
        let bearer = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        return state.book().hook(bearer, &body);
    }
    let answered = if head.method == Method::POST { post(&state, &path, &body) } else { get(&state, &path) };
    let mut response = answered.unwrap_or_else(|(status, kind, detail)| problem(status, kind, &detail));
    let nonce = state.book().nonce();
    response.headers_mut().insert("replay-nonce", value(&nonce));
    response
}

fn get(state: &State, path: &str) -> Answered {
    let book = state.book();
    let base = &book.base;
    match path {
        "/directory" => {
            let mut directory = json!({
                "newNonce": format!("{base}/new-nonce"),
                "newAccount": format!("{base}/new-account"),
                "newOrder": format!("{base}/new-order"),
                "revokeCert": format!("{base}/revoke"),
                "keyChange": format!("{base}/key-change"),
            });
            if book.renewals.is_some() {
                directory["renewalInfo"] = json!(format!("{base}/renewal-info"));
            }
            Ok(serve::json(200, &directory))
        }
        "/new-nonce" => Ok(serve::json(200, &json!({}))),
        _ => match path.strip_prefix("/renewal-info/") {
            Some(_) => Ok(book.advice()),
            None => Err((404, "malformed", format!("nothing at {path}"))),
        },
    }
}

fn post(state: &Arc<State>, path: &str, body: &[u8]) -> Answered {
    let signed = {
        let mut book = state.book();
        let signed = jws::open(body, &book.accounts).map_err(|reason| (400, "malformed", reason))?;
        if signed.url != format!("{}{path}", book.base) {
            return Err((401, "unauthorized", "the signed URL is another one".to_owned()));
        }
        if !book.nonces.remove(&signed.nonce) {
            return Err((400, "badNonce", "not a fresh nonce".to_owned()));
        }
        signed
    };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (parts.as_slice(), &signed.signer) {
        (["new-account"], Signer::Key(jwk)) => state.book().register(jwk, &signed),
        (_, Signer::Key(_)) => Err((401, "unauthorized", "only new accounts sign with a key".to_owned())),
        (["new-order"], _) => state.book().place(&signed),
        (["order", order], _) => state.book().order(number(order)?),
        (["order", order, "finalize"], _) => finalize(state, number(order)?, &signed),
        (["authorization", id], _) => state.book().authorization(number(id)?),
        (["challenge", id, kind], Signer::Account(account)) => challenge(state, number(id)?, kind, *account),
        (["certificate", id], _) => {
            let pem = state.book().certificates.get(number(id)?).cloned();
            let pem = pem.ok_or((404, "malformed", "no such certificate".to_owned()))?;
            let builder = Response::builder().header("content-type", "application/pem-certificate-chain");
            Ok(builder.body(serve::whole(pem)).expect("a valid header"))
        }
        _ => Err((404, "malformed", format!("nothing at {path}"))),
    }
}

fn number(text: &str) -> Result<usize, (u16, &'static str, String)> {
    text.parse().map_err(|_| (404, "malformed", "not a number".to_owned()))
}

impl Book {
    fn hook(&mut self, bearer: Option<&str>, body: &[u8]) -> Response<Body> {
        let Ok(mut call) = serde_json::from_slice::<Value>(body) else {
            return serve::json(400, &json!({}));
        };
        let text = |name: &str| call[name].as_str().unwrap_or_default().to_owned();
        let (fqdn, record) = (text("fqdn"), text("value"));
        let values = self.txt.entry(fqdn).or_default();
        match call["action"].as_str() {
            Some("present") => drop(values.insert(record)),
            _ => drop(values.remove(&record)),
        }
        call["authorization"] = json!(bearer);
        self.hook_calls.push(call);
        serve::json(200, &json!({}))
    }

    fn nonce(&mut self) -> String {
        self.count += 1;
        let nonce = format!("nonce-{}", self.count);
        self.nonces.insert(nonce.clone());
        nonce
    }

    fn register(&mut self, jwk: &Value, signed: &Signed) -> Answered {
        if let Some((id, key)) = &self.external_account {
            jws::check_binding(&signed.payload["externalAccountBinding"], id, key, jwk)
                .map_err(|reason| (403, "externalAccountRequired", reason))?;
        }
        let known = self.accounts.iter().position(|account| account == jwk);
        let at = known.unwrap_or_else(|| {
            self.accounts.push(jwk.clone());
            self.accounts.len() - 1
        });
        let mut response = serve::json(201, &json!({"status": "valid"}));
        response.headers_mut().insert("location", value(&format!("{}/account/{at}", self.base)));
        Ok(response)
    }

    fn place(&mut self, signed: &Signed) -> Answered {
        if let Some(refusal) = self.refusal.clone() {
            let mut response = problem(refusal.status, refusal.kind, refusal.detail);
            if let Some(seconds) = refusal.retry_after {
                response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
            }
            return Ok(response);
        }
        let identifiers = signed.payload["identifiers"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> =
            identifiers.iter().filter_map(|id| id["value"].as_str().map(str::to_owned)).collect();
        if names.is_empty() {
            return Err((400, "malformed", "no identifiers".to_owned()));
        }
        let authorizations = names.iter().map(|name| self.authorize(name)).collect();
        let replaces = signed.payload["replaces"].as_str().map(str::to_owned);
        let placed = Placed { names, replaces };
        self.orders.push(Order { placed, authorizations, status: "pending", certificate: None });
        self.order(self.orders.len() - 1).map(|mut response| {
            *response.status_mut() = StatusCode::CREATED;
            response
        })
    }

    fn authorize(&mut self, name: &str) -> usize {
        self.count += 1;
        let token = BASE64_URL_SAFE_NO_PAD.encode(format!("token number {:08}", self.count));
        let (name, wildcard) = match name.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let name = name.to_owned();
        self.authorizations.push(Authorization { name, wildcard, token, status: "pending", failed: None });
        self.authorizations.len() - 1
    }

    fn order(&mut self, at: usize) -> Answered {
        let states: Vec<&str> = match self.orders.get(at) {
            Some(order) => order.authorizations.iter().map(|id| self.authorizations[*id].status).collect(),
            None => return Err((404, "malformed", "no such order".to_owned())),
        };
        let order = &mut self.orders[at];
        if order.status == "pending" {
            if states.contains(&"invalid") {
                order.status = "invalid";
            } else if states.iter().all(|state| *state == "valid") {
                order.status = "ready";
            }
        }
        let base = &self.base;
        let identifiers: Vec<Value> =
            order.placed.names.iter().map(|name| json!({"type": "dns", "value": name})).collect();
        let urls: Vec<String> =
            order.authorizations.iter().map(|id| format!("{base}/authorization/{id}")).collect();
        let mut shown = json!({
            "status": order.status,
            "identifiers": identifiers,
            "authorizations": urls,
            "finalize": format!("{base}/order/{at}/finalize"),
        });
        if let Some(certificate) = order.certificate {
            shown["certificate"] = json!(format!("{base}/certificate/{certificate}"));
        }
        if let Some(replaces) = &order.placed.replaces {
            shown["replaces"] = json!(replaces);
        }
        let mut response = serve::json(200, &shown);
        response.headers_mut().insert("location", value(&format!("{base}/order/{at}")));
        Ok(response)
    }

    fn authorization(&self, at: usize) -> Answered {
        let found =
            self.authorizations.get(at).ok_or((404, "malformed", "no such authorization".to_owned()))?;
        let challenges: Vec<Value> = CHALLENGES
            .iter()
            .filter(|kind| !found.wildcard || **kind == "dns-01")
            .map(|kind| found.challenge(&self.base, at, kind))
            .collect();
        Ok(serve::json(
            200,
            &json!({
                "status": found.status,
                "identifier": {"type": "dns", "value": found.name},
                "wildcard": found.wildcard,
                "challenges": challenges,
            }),
        ))
    }

    fn advice(&self) -> Response<Body> {
        let now = SystemTime::now();
        let at_once = self.renewals == Some(true) && self.certificates.len() == 1;
        let start = if at_once { now - Duration::from_secs(60) } else { now + self.life / 2 };
        let text = |time: SystemTime| {
            let time = time::OffsetDateTime::from(time);
            time.format(&time::format_description::well_known::Rfc3339).expect("a time is writable")
        };
        let window = json!({"start": text(start), "end": text(start + Duration::from_secs(1))});
        let mut response = serve::json(200, &json!({ "suggestedWindow": window }));
        response.headers_mut().insert("retry-after", HeaderValue::from(21_600));
        response
    }
}

impl Authorization {
    fn challenge(&self, base: &str, at: usize, kind: &str) -> Value {
        let mut shown = json!({
            "type": kind,
            "url": format!("{base}/challenge/{at}/{kind}"),
            "token": self.token,
            "status": self.status,
        });
        if let Some((failed, reason)) = &self.failed
            && *failed == kind
        {
            shown["error"] =
                json!({"type": "urn:ietf:params:acme:error:unauthorized", "detail": reason, "status": 403});
        }
        shown
    }
}

/// Looks at once, in the background, as authorities do.
fn challenge(state: &Arc<State>, at: usize, kind: &str, account: usize) -> Answered {
    let kind = CHALLENGES.into_iter().find(|known| *known == kind);
    let kind = kind.ok_or((404, "malformed", "no such challenge".to_owned()))?;
    let mut book = state.book();
    let thumbprint = jws::thumbprint(&book.accounts[account]);
    let base = book.base.clone();
    book.validations += 1;
    let found =
        book.authorizations.get_mut(at).ok_or((404, "malformed", "no such authorization".to_owned()))?;
    found.status = "pending";
    let shown = found.challenge(&base, at, kind);
    let (name, token) = (found.name.clone(), found.token.clone());
    drop(book);
    let state = state.clone();
    tokio::spawn(async move {
        let key_authorization = format!("{token}.{thumbprint}");
        let outcome = validation::look(&state, kind, &name, &token, &key_authorization).await;
        let authorization = &mut state.book().authorizations[at];
        match outcome {
            Ok(()) => authorization.status = "valid",
            Err(error) => {
                authorization.status = "invalid";
                authorization.failed = Some((kind, format!("{error:#}")));
            }
        }
    });
    Ok(serve::json(200, &shown))
}

/// Issues for exactly the names of the order and the key that signed the request.
fn finalize(state: &State, at: usize, signed: &Signed) -> Answered {
    let bad = |detail: &str| (403, "badCSR", detail.to_owned());
    let csr = signed.payload["csr"].as_str().and_then(|csr| BASE64_URL_SAFE_NO_PAD.decode(csr).ok());
    let csr = csr.ok_or(bad("no request"))?;
    let mut book = state.book();
    book.order(at)?;
    if book.orders[at].status != "ready" {
        return Err((403, "orderNotReady", format!("the order is {}", book.orders[at].status)));
    }
    let now = SystemTime::now();
    let (from, to) = (now - book.age, now + book.life);
    book.count += 1;
    let serial = book.count;
    let names: BTreeSet<String> = book.orders[at].placed.names.iter().cloned().collect();
    let pem =
        state.authority.sign(&csr, &names, from, to, serial).map_err(|error| bad(&format!("{error:#}")))?;
    book.certificates.push(pem);
    let number = book.certificates.len() - 1;
    let order = &mut book.orders[at];
    (order.status, order.certificate) = ("valid", Some(number));
    book.order(at)
}

fn problem(status: u16, kind: &str, detail: &str) -> Response<Body> {
    let document = json!({
        "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status,
    });
    let mut response = serve::json(status, &document);
    response.headers_mut().insert("content-type", value("application/problem+json"));
    response
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("URLs and nonces are valid header values")
}
