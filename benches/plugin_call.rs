//! What one `http-filter` call adds to a request.

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use tollgate::{
    config::{
        ByteSize,
        plugin::{ControlVerb, Grants, LedgerGrant, Limits, Module, OnError, Plugin},
        state::{Backend, State},
    },
    plugin::{HostServices, Inspect, Plugins, Version, api::RequestHead},
    state::{self, Secrets},
    telemetry::Metrics,
};

#[path = "../src/plugin/tests/probe.rs"]
mod probe;

struct Nothing;

impl Inspect for Nothing {
    fn routes(&self) -> String {
        String::new()
    }

    fn services(&self) -> String {
        String::new()
    }
}

fn plugin() -> Plugin {
    Plugin {
        module: Module::File(probe::file().to_owned()),
        sha256: None,
        on_error: OnError::Reject,
        grants: Grants {
            log: true,
            key_value: vec!["gate".to_owned()],
            ledger: LedgerGrant::Read,
            secrets: vec!["byok".to_owned()],
            control: vec![ControlVerb::Read],
        },
        limits: Limits {
            memory: ByteSize(32 << 20),
            time_per_call: Duration::from_millis(50),
            instances: 4,
            calls_per_instance: u64::MAX,
        },
        config: "null".to_owned(),
    }
}

async fn load(data_dir: &std::path::Path) -> Arc<Plugins> {
    let config = State { data_dir: data_dir.to_owned(), backend: Backend::Embedded };
    let store = state::open(&config, None).await.expect("the store opens").store;
    let secrets = Secrets::open(store.clone(), data_dir).await.expect("the secrets open");
    let services = HostServices { store, secrets, inspect: Arc::new(Nothing), metrics: Metrics::new() };
    let plugins = Plugins::new(services, None).expect("the engine starts");
    let configured = BTreeMap::from([("probe".parse().expect("a name"), plugin())]);
    plugins.apply(&configured).await.expect("the probe loads");
    plugins
}

fn head(path: &str) -> RequestHead {
    RequestHead {
        request_id: "01J0000000000000000000000".to_owned(),
        method: "GET".to_owned(),
        scheme: "https".to_owned(),
        authority: "example.test".to_owned(),
        path: path.to_owned(),
        client_address: "192.0.2.1".to_owned(),
        route: "main".to_owned(),
        headers: vec![("x-one".to_owned(), "1".to_owned()), ("x-two".to_owned(), "2".to_owned())],
    }
}

/// The requests of one sample, one after another on one thread.
fn measure(criterion: &mut Criterion, runtime: &Runtime, name: &str, path: &str, chain: &[Arc<Version>]) {
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|requests| {
            runtime.block_on(async {
                let start = std::time::Instant::now();
                for _ in 0..requests {
                    let head = black_box(head(path));
                    for version in chain {
                        let verdict = version.on_request(head.clone()).await;
                        black_box(verdict.expect("the call succeeds"));
                    }
                }
                start.elapsed()
            })
        });
    });
}

fn plugin_call(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    let data = tempfile::tempdir().expect("a directory");
    let plugins = runtime.block_on(load(data.path()));
    let version = plugins.slot("probe").expect("the probe is in service").current();
    measure(criterion, &runtime, "empty chain", "/pass", &[]);
    measure(criterion, &runtime, "no-op filter", "/pass", std::slice::from_ref(&version));
    measure(criterion, &runtime, "filter: two headers read, one set", "/copy", &[version]);
}

criterion_group!(benches, plugin_call);
criterion_main!(benches);
