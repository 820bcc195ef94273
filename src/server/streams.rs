//! Which connections are passed on as bytes, and to which service.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{FrontEvents, client_hello::Opening};
use crate::{
    config::{
        Config, Name,
        entrypoint::Entrypoint,
        service::Service,
        stream::{Stream, StreamTls},
    },
    telemetry::StreamMetrics,
    upstream::{TcpCluster, TcpClusters},
};

/// What the doors are made from.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub entrypoints: &'a BTreeMap<Name, Entrypoint>,
    pub streams: &'a [Stream],
    pub services: &'a BTreeMap<Name, Service>,
}

impl<'a> Wanted<'a> {
    /// What `config` says, on `entrypoints`: those of the file and the operator's.
    pub fn new(entrypoints: &'a BTreeMap<Name, Entrypoint>, config: &'a Config) -> Self {
        Self { entrypoints, streams: &config.streams, services: &config.services }
    }
}

/// No streams.
impl<'a> From<&'a BTreeMap<Name, Entrypoint>> for Wanted<'a> {
    fn from(entrypoints: &'a BTreeMap<Name, Entrypoint>) -> Self {
        const NONE: &BTreeMap<Name, Service> = &BTreeMap::new();
        Self { entrypoints, streams: &[], services: NONE }
    }
}

/// The streams of one entrypoint, by the names that clients ask for.
pub(super) struct StreamTable {
    exact: HashMap<String, Arc<Way>>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Arc<Way>>,
    /// Takes what nothing else takes, TLS or not.
    any: Option<Arc<Way>>,
}

/// Where a stream leads.
pub(super) struct Way {
    pub(super) stream: Arc<str>,
    pub(super) terminate: bool,
    pub(super) cluster: Arc<TcpCluster>,
    pub(super) metrics: Option<Arc<StreamMetrics>>,
}

impl StreamTable {
    /// `None` for an entrypoint without streams.
    pub(super) fn build(
        entrypoint: &Name,
        wanted: &Wanted<'_>,
        clusters: &TcpClusters,
        events: &dyn FrontEvents,
    ) -> Option<Self> {
        let mut table = Self { exact: HashMap::new(), wildcard: HashMap::new(), any: None };
        for stream in wanted.streams.iter().filter(|stream| stream.entrypoints.contains(entrypoint)) {
            // Both hold in every configuration that was read.
            let Some(Service::Tcp(service)) = wanted.services.get(&stream.service) else { continue };
            let way = Arc::new(Way {
                stream: stream.name.shared(),
                terminate: stream.tls == StreamTls::Terminate,
                cluster: clusters.cluster(&stream.service, service),
                metrics: events.stream_metrics(stream.service.as_str()),
            });
            for host in &stream.hosts {
                table.add(host, way.clone());
            }
        }
        let empty = table.exact.is_empty() && table.wildcard.is_empty() && table.any.is_none();
        if empty { None } else { Some(table) }
    }

    fn add(&mut self, host: &str, way: Arc<Way>) {
        match host.strip_prefix("*.") {
            Some(rest) => drop(self.wildcard.insert(rest.to_owned(), way)),
            None if host == "*" => self.any = Some(way),
            None => drop(self.exact.insert(host.to_owned(), way)),
        }
    }

    /// The stream that takes every connection unseen. Where there is one,
    /// services that speak before their clients do work.
    pub(super) fn unseen(&self) -> Option<&Arc<Way>> {
        let alone = self.exact.is_empty() && self.wildcard.is_empty();
        self.any.as_ref().filter(|way| alone && !way.terminate)
    }

    /// Exact name, then a wildcard for one more label, then `*`. `None` leaves
    /// the connection to HTTP.
    pub(super) fn choose(&self, opening: &Opening) -> Option<&Arc<Way>> {
        let Opening::Tls { sni, acme } = opening else {
            return self.any.as_ref().filter(|way| !way.terminate);
        };
        let named = sni.as_deref().and_then(|name| {
            self.exact.get(name).or_else(|| {
                let (_, rest) = name.split_once('.')?;
                self.wildcard.get(rest)
            })
        });
        // Where TLS ends here, so do the challenges for its certificates.
        named.or(self.any.as_ref()).filter(|way| !(way.terminate && *acme))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::service::{TcpService, TcpTarget};

    fn stream(name: &str, hosts: &[&str], tls: StreamTls) -> Stream {
        Stream {
            name: name.parse().unwrap(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            entrypoints: vec!["web".parse().unwrap()],
            tls,
            service: "db".parse().unwrap(),
        }
    }

    fn table(streams: &[Stream], entrypoint: &str) -> Option<StreamTable> {
        let service = TcpService {
            targets: vec![TcpTarget { host: "127.0.0.1".to_owned(), port: 1 }],
            connect: Duration::from_secs(1),
            idle: Duration::from_secs(1),
            proxy_protocol: None,
        };
        let services = BTreeMap::from([("db".parse().unwrap(), Service::Tcp(service))]);
        let wanted = Wanted { entrypoints: &BTreeMap::new(), streams, services: &services };
        StreamTable::build(&entrypoint.parse().unwrap(), &wanted, &TcpClusters::default(), &())
    }

    fn asks(name: &str) -> Opening {
        Opening::Tls { sni: (!name.is_empty()).then(|| name.to_owned()), acme: false }
    }

    #[test]
    fn the_most_exact_name_takes_the_connection() {
        let streams = [
            stream("one", &["a.test", "b.test"], StreamTls::Passthrough),
            stream("wild", &["*.a.test"], StreamTls::Passthrough),
            stream("all", &["*"], StreamTls::Passthrough),
        ];
        let chosen = |streams: &[Stream], opening: &Opening| {
            table(streams, "web").unwrap().choose(opening).map(|way| way.stream.to_string())
        };
        for (name, expected) in [
            ("a.test", "one"),
            ("b.test", "one"),
            ("x.a.test", "wild"),
            ("y.x.a.test", "all"),
            ("c.test", "all"),
            ("", "all"),
        ] {
            assert_eq!(chosen(&streams, &asks(name)).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(chosen(&streams, &Opening::Other).as_deref(), Some("all"));
        assert_eq!(chosen(&streams[..2], &asks("c.test")), None);
        assert_eq!(chosen(&streams[..2], &Opening::Other), None);
    }

    #[test]
    fn only_a_lone_star_takes_connections_unseen() {
        let star = stream("all", &["*"], StreamTls::Passthrough);
        let ended = stream("all", &["*"], StreamTls::Terminate);
        let named = stream("one", &["a.test"], StreamTls::Passthrough);
        assert!(table(std::slice::from_ref(&star), "web").unwrap().unseen().is_some());
        assert!(table(&[star, named], "web").unwrap().unseen().is_none());
        assert!(table(&[ended], "web").unwrap().unseen().is_none());
    }

    #[test]
    fn a_stream_belongs_to_its_entrypoints() {
        assert!(table(&[stream("one", &["a.test"], StreamTls::Passthrough)], "other").is_none());
    }

    #[test]
    fn challenges_are_answered_where_tls_ends() {
        let acme = Opening::Tls { sni: Some("a.test".to_owned()), acme: true };
        for (tls, taken) in [(StreamTls::Passthrough, true), (StreamTls::Terminate, false)] {
            let table = table(&[stream("one", &["a.test"], tls)], "web").unwrap();
            assert_eq!(table.choose(&acme).is_some(), taken);
        }
        let ended = table(&[stream("all", &["*"], StreamTls::Terminate)], "web").unwrap();
        assert!(ended.choose(&Opening::Other).is_none(), "there is no TLS to end");
    }
}
