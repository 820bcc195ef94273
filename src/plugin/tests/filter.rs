//! `http-filter`, and what every hook shares: limits, faults, the pool.

use std::time::Duration;

use crate::{
    config::{
        ByteSize,
        plugin::{ControlVerb, LedgerGrant},
    },
    plugin::{
        PluginFault,
        api::{Edit, EndSummary, RequestVerdict, ResponseHead},
    },
};

use super::support::{Bench, configured, plugin, request};

fn set(name: &str, value: &str) -> RequestVerdict {
    RequestVerdict::Edit(vec![Edit::SetHeader((name.to_owned(), value.to_owned()))])
}

fn same(left: &RequestVerdict, right: &RequestVerdict) -> bool {
    format!("{left:?}") == format!("{right:?}")
}

async fn ask(bench: &Bench, path: &str) -> Result<RequestVerdict, PluginFault> {
    bench.version().on_request(request(path)).await
}

#[track_caller]
fn assert_set(verdict: Result<RequestVerdict, PluginFault>, name: &str, value: &str) {
    let verdict = verdict.unwrap();
    assert!(same(&verdict, &set(name, value)), "{verdict:?} is not {name}: {value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_come_back_as_given() {
    let bench = Bench::with(plugin()).await;
    assert!(matches!(ask(&bench, "/pass").await, Ok(RequestVerdict::Pass)));
    assert_set(ask(&bench, "/").await, "x-label", "a");
    assert_set(ask(&bench, "/copy").await, "x-copy", "12");
    match ask(&bench, "/reply").await {
        Ok(RequestVerdict::Reply(reply)) => assert_eq!((reply.status, &reply.body[..]), (403, &b"no"[..])),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_and_ends_reach_the_plugin() {
    let bench = Bench::with(plugin()).await;
    let version = bench.version();
    let subscription = version.subscription();
    assert_eq!(subscription.request_headers, ["x-one", "x-two"]);
    assert!(subscription.on_response && subscription.on_end);
    let head = ResponseHead { request_id: "r1".to_owned(), status: 200, headers: vec![] };
    assert!(matches!(version.on_response(head).await.unwrap()[..], [Edit::SetStatus(201)]));
    let summary = EndSummary {
        request_id: "r1".to_owned(),
        status: 200,
        request_bytes: 0,
        response_bytes: 2,
        duration_us: 3,
        complete: true,
    };
    version.on_end(summary).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_each_failure_the_next_call_works() {
    let bench = Bench::with(plugin()).await;
    let failures = [
        ("/trap", PluginFault::Trapped),
        ("/recurse", PluginFault::Trapped),
        ("/hoard", PluginFault::OutOfMemory),
        ("/loop", PluginFault::TimedOut),
    ];
    for (path, expected) in failures {
        assert_eq!(ask(&bench, path).await.unwrap_err(), expected, "{path}");
        // A failed instance is gone: the next one starts counting anew.
        assert_set(ask(&bench, "/calls").await, "x-calls", "1");
    }
    let info = &bench.plugins.list()[0];
    assert_eq!((info.calls, info.traps, info.instances), (8, 4, 1));
    assert_eq!(bench.metrics.plugin("probe").totals(), (8, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_the_plugins_failure() {
    let bench = Bench::with(plugin()).await;
    for path in ["/huge", "/no-status", "/framing"] {
        assert!(matches!(ask(&bench, path).await, Err(PluginFault::Invalid(_))), "{path}");
    }
    assert_eq!(bench.plugins.list()[0].traps, 3);
}

#[tokio::test]
async fn an_endless_loop_leaves_its_thread_to_others() {
    // One thread: the timer below can fire only if the loop yields.
    let bench = Bench::with(plugin()).await;
    let version = bench.version();
    let looping = version.on_request(request("/loop"));
    tokio::select! {
        biased;
        fault = looping => panic!("ended first: {fault:?}"),
        () = tokio::time::sleep(Duration::from_millis(10)) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_counts_at_the_start_too() {
    let mut small = plugin();
    small.limits.memory = ByteSize(64 << 10);
    let bench = Bench::empty().await;
    let errors = bench.plugins.apply(&configured(small)).await.unwrap_err();
    assert!(errors[0].to_string().contains("limits.memory"), "{}", errors[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_reused_and_then_recycled() {
    let mut short_lived = plugin();
    short_lived.limits.calls_per_instance = 2;
    let bench = Bench::with(short_lived).await;
    for expected in ["1", "2", "1", "2"] {
        assert_set(ask(&bench, "/calls").await, "x-calls", expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_host_is_not_computing() {
    const TIME: Duration = Duration::from_millis(50);
    let mut hasty = plugin();
    hasty.limits.time_per_call = TIME;
    let bench = Bench::with(hasty).await;
    let version = bench.version();
    let call = tokio::spawn(async move { version.on_request(request("/wait")).await });
    bench.store.arrived.acquire().await.unwrap().forget();
    let arrived = tokio::time::Instant::now();
    // The host takes three times as long as the guest may compute.
    tokio::time::sleep_until(arrived + TIME * 3).await;
    bench.store.gate.add_permits(1);
    assert_set(call.await.unwrap(), "x-gate", "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_makes_calls_wait_and_then_fail() {
    let mut single = plugin();
    single.limits.instances = 1;
    let bench = Bench::with(single).await;
    let version = bench.version();
    let busy = tokio::spawn({
        let version = version.clone();
        async move { version.on_request(request("/wait")).await }
    });
    bench.store.arrived.acquire().await.unwrap().forget();
    assert_eq!(ask(&bench, "/").await.unwrap_err(), PluginFault::Exhausted);

    let queued = tokio::spawn(async move { version.on_request(request("/")).await });
    bench.store.gate.add_permits(1);
    assert_set(busy.await.unwrap(), "x-gate", "open");
    assert_set(queued.await.unwrap(), "x-label", "a");
    assert_eq!(bench.plugins.instances(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_dropped_half_way_takes_its_instance_along() {
    let bench = Bench::with(plugin()).await;
    let version = bench.version();
    let abandoned = version.on_request(request("/wait"));
    tokio::select! {
        verdict = abandoned => panic!("{verdict:?}"),
        arrived = bench.store.arrived.acquire() => arrived.unwrap().forget(),
    }
    assert_eq!(bench.plugins.instances(), 0);
    assert_set(ask(&bench, "/calls").await, "x-calls", "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_hold_for_each_call() {
    let bench = Bench::with(plugin()).await;
    let expected = r#"2 denied 5 denied false denied "[\"routes\"]" denied"#;
    assert_set(ask(&bench, "/host").await, "x-host", expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_is_possible_with_more_grants() {
    let mut trusted = plugin();
    trusted.grants.ledger = LedgerGrant::Write;
    trusted.grants.control.push(ControlVerb::LoadPlugin);
    let bench = Bench::with(trusted).await;
    match ask(&bench, "/host").await.unwrap() {
        RequestVerdict::Edit(edits) => match &edits[..] {
            [Edit::SetHeader((_, results))] => {
                assert!(results.starts_with("2 denied 5 true false denied "), "{results}");
                assert!(results.contains("plugin probe: not a usable component"), "{results}");
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_finishes_on_its_version() {
    let bench = Bench::with(plugin()).await;
    let old = bench.version();
    let call = tokio::spawn(async move { (old.number(), old.on_request(request("/wait")).await) });
    bench.store.arrived.acquire().await.unwrap().forget();

    let mut next = plugin();
    next.config = "\"b\"".to_owned();
    bench.plugins.apply(&configured(next)).await.unwrap();
    assert_set(ask(&bench, "/").await, "x-label", "b");
    assert_eq!(bench.plugins.instances(), 2);

    bench.store.gate.add_permits(1);
    let (number, verdict) = call.await.unwrap();
    assert_set(verdict, "x-gate", "open");
    assert_eq!((number, bench.plugins.list()[0].version), (1, 2));
    assert_eq!(bench.plugins.instances(), 1);
}
