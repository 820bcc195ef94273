//! Why handshakes fail, in words fit for a metric.

use std::io;

use rustls::{Error, PeerIncompatible};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeFailure {
    TimedOut,
    /// The client went away.
    Closed,
    NotTls,
    UnknownName,
    /// No TLS version in common.
    Version,
    /// No cipher suite, key exchange or signature in common.
    Cipher,
    /// No protocol in common (ALPN).
    Protocol,
    /// A client certificate is required, and there was none.
    NoCertificate,
    /// The client certificate is expired, or of an authority that is not trusted.
    BadCertificate,
    /// The client broke off with an alert: it does not like our certificate.
    Refused,
    /// Not as the protocol has it.
    Malformed,
}

impl HandshakeFailure {
    /// Metric label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not-tls",
            Self::UnknownName => "unknown-name",
            Self::Version => "version",
            Self::Cipher => "cipher",
            Self::Protocol => "protocol",
            Self::NoCertificate => "no-certificate",
            Self::BadCertificate => "bad-certificate",
            Self::Refused => "refused-by-client",
            Self::Malformed => "malformed",
        }
    }
}

impl From<io::Error> for HandshakeFailure {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            None => Self::Closed,
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(_)) => Self::BadCertificate,
            Some(Error::NoApplicationProtocol) => Self::Protocol,
            Some(Error::AlertReceived(_)) => Self::Refused,
            Some(Error::PeerIncompatible(why)) => match why {
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled => Self::Version,
                _ => Self::Cipher,
            },
            Some(_) => Self::Malformed,
        }
    }
}
