//! What does it cost to find the route of a request among 10, 1,000 and 10,000?

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use tollgate::{
    config::route::{Matcher, Route},
    route::{RequestView, Table},
};

const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// A hundred hosts that share the routes, each route with its own prefix and
/// every third one with a method.
fn routes(count: usize) -> Vec<Route> {
    (0..count).map(route).collect()
}

fn route(number: usize) -> Route {
    let method = if number.is_multiple_of(3) { " && Method(`GET`)" } else { "" };
    let rule = format!("Host(`h{}.example.com`) && PathPrefix(`/api/v{number}/`){method}", number % 100);
    Route {
        name: format!("r{number}").parse().expect("a valid name"),
        matcher: Matcher::Rule(rule),
        priority: None,
        entrypoints: Vec::new(),
        strip_path: None,
        chain: Vec::new(),
        service: "origin".parse().expect("a valid name"),
    }
}

fn lookup(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("lookup");
    let headers = HeaderMap::new();
    for size in SIZES {
        let table = Table::build(&routes(size)).expect("the routes are valid");
        let number = size / 2;
        let (host, path) = (format!("h{}.example.com", number % 100), format!("/api/v{number}/items/42"));
        for (name, host) in [("hit", host.as_str()), ("miss", "nowhere.example.com")] {
            let view = RequestView {
                entrypoint: "web",
                host,
                path: &path,
                exact_path: false,
                query: None,
                method: &Method::GET,
                headers: &headers,
                client: [192, 0, 2, 1].into(),
                sni: None,
            };
            assert_eq!(table.lookup(&view), (name == "hit").then_some(number));
            group.bench_function(BenchmarkId::new(name, size), |b| b.iter(|| table.lookup(black_box(&view))));
        }
    }
    group.finish();
}

fn build(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("build");
    group.sample_size(10);
    for size in SIZES {
        let routes = routes(size);
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| Table::build(black_box(&routes)))
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, build);
criterion_main!(benches);
