//! Per name: the certificate that answers it and the options that hold for it.

use std::{collections::HashMap, fmt, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{by_name::ByName, certificate::Certificate, certificates::Certificates};
use crate::{
    config::tls::{EntrypointTls, TlsOptions},
    proxy::HostRules,
};

/// What holds for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// Position among the distinct options of the entrypoint.
    pub(super) options: usize,
    /// Equal for names that ask the same of a client, whatever they offer.
    demands: usize,
    strict: bool,
}

/// The names of one entrypoint.
pub(super) struct Hosts {
    files: ByName,
    /// Serves clients that name nothing known.
    fallback: Option<Arc<Certificate>>,
    dynamic: Arc<Certificates>,
    default: Terms,
    exact: HashMap<String, Terms>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Terms>,
}

/// Gathers equal options.
#[derive(Default)]
pub(super) struct Distinct(Vec<TlsOptions>);

impl Distinct {
    fn position(&mut self, options: &TlsOptions) -> usize {
        self.0.iter().position(|known| known == options).unwrap_or_else(|| {
            self.0.push(options.clone());
            self.0.len() - 1
        })
    }
}

impl Hosts {
    /// `certificates` as in `tls`, in the same order. With them: the distinct
    /// options that [`Terms::options`] counts.
    pub(super) fn new(
        tls: &EntrypointTls,
        certificates: Vec<Arc<Certificate>>,
        dynamic: Arc<Certificates>,
    ) -> (Self, Vec<TlsOptions>) {
        let (mut all, mut demands) = (Distinct::default(), Distinct::default());
        let mut terms = |options: &TlsOptions| {
            // Which protocol is spoken changes nothing about who may come in.
            let demanded = TlsOptions { alpn: Vec::new(), ..options.clone() };
            Terms {
                options: all.position(options),
                demands: demands.position(&demanded),
                strict: options.sni_strict,
            }
        };
        let default = terms(&tls.options);
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (name, options) in &tls.hosts {
            match name.strip_prefix("*.") {
                Some(rest) => wildcard.insert(rest.to_owned(), terms(options)),
                None => exact.insert(name.clone(), terms(options)),
            };
        }
        let mut files = ByName::default();
        for certificate in &certificates {
            files.add(certificate);
        }
        let fallback = certificates.into_iter().next();
        (Self { files, fallback, dynamic, default, exact, wildcard }, all.0)
    }

    /// Exact name, then a wildcard for one more label, then the entrypoint's.
    /// `name` in lower case.
    pub(super) fn terms(&self, name: Option<&str>) -> Terms {
        let named =
            name.and_then(|name| self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1)));
        *named.unwrap_or(&self.default)
    }

    /// Whether a handshake for `name` can be answered at all.
    pub(super) fn answers(&self, name: Option<&str>) -> bool {
        let known = name.is_some_and(|name| self.knows(name));
        known || (!self.terms(name).strict && self.fallback.is_some())
    }

    fn knows(&self, name: &str) -> bool {
        !self.files.of(name).is_empty() || !self.dynamic.held().of(name).is_empty()
    }

    fn certificate(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |certificates: &[Arc<Certificate>]| {
            let usable = certificates
                .iter()
                .find(|own| own.key.key.choose_scheme(hello.signature_schemes()).is_some());
            usable.or(certificates.first()).map(|own| own.key.clone())
        };
        let lowered;
        let name = match hello.server_name() {
            Some(name) if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                lowered = name.to_ascii_lowercase();
                Some(lowered.as_str())
            }
            name => name,
        };
        let named =
            name.and_then(|name| fits(self.files.of(name)).or_else(|| fits(self.dynamic.held().of(name))));
        if named.is_some() || self.terms(name).strict {
            return named;
        }
        self.fallback.as_ref().map(|own| own.key.clone())
    }
}

impl ResolvesServerCert for Hosts {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificate(&hello)
    }
}

impl HostRules for Hosts {
    fn share(&self, sni: Option<&str>, host: &str) -> bool {
        let terms = self.terms(Some(host));
        terms.demands == self.terms(sni).demands && (!terms.strict || self.knows(host))
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts").field("files", &self.files.names()).finish_non_exhaustive()
    }
}
