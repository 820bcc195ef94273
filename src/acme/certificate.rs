//! What a certificate says of itself, as far as keeping it renewed needs that.

use std::time::{Duration, SystemTime};

use instant_acme::CertificateIdentifier;
use rustls_pki_types::{CertificateDer, Der, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    time::ASN1Time,
};

use super::AcmeError;

/// Of the first certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// DNS names in lower case; a wildcard keeps its `*.`.
    pub(super) names: Vec<String>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// By which the authority knows it (RFC 9773 section 4.1); none without an
    /// authority key identifier.
    pub(super) id: Option<CertificateIdentifier<'static>>,
}

impl Facts {
    pub(super) fn read(chain_pem: &str) -> Result<Self, AcmeError> {
        let unusable = |reason: String| AcmeError::Unusable(reason);
        let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes())
            .map_err(|error| unusable(error.to_string()))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&leaf).map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            names: names(&parsed),
            not_before: time(parsed.validity().not_before),
            not_after: time(parsed.validity().not_after),
            id: id(&parsed),
        })
    }

    /// Whether a client that asks for `name` would accept it.
    pub(super) fn serves(&self, name: &str) -> bool {
        self.names.iter().any(|own| covers(own, name))
    }
}

/// Whether a certificate for `pattern` serves `name`, too: the same one, or one
/// label below a wildcard (RFC 6125 section 6.4.3).
pub(super) fn covers(pattern: &str, name: &str) -> bool {
    pattern == name
        || pattern.strip_prefix("*.").is_some_and(|rest| {
            !name.starts_with("*.") && name.split_once('.').is_some_and(|(_, parent)| parent == rest)
        })
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(dns).collect()
}

fn id(certificate: &X509Certificate<'_>) -> Option<CertificateIdentifier<'static>> {
    let authority =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref(),
            _ => None,
        })?;
    Some(CertificateIdentifier::new(Der::from_slice(authority.0), Der::from_slice(certificate.raw_serial())))
}

/// Before 1970 there is no certificate; it counts as ended then.
fn time(time: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_more_label() {
        for (pattern, name, expected) in [
            ("a.test", "a.test", true),
            ("a.test", "b.a.test", false),
            ("*.a.test", "b.a.test", true),
            ("*.a.test", "a.test", false),
            ("*.a.test", "c.b.a.test", false),
            ("*.a.test", "*.a.test", true),
            ("*.test", "*.a.test", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn names_times_and_identifier_are_read() {
        let mut params = rcgen::CertificateParams::new(vec!["A.test".into(), "*.b.test".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 4, 1);
        params.serial_number = Some(vec![0x87, 0x65].into());
        params.use_authority_key_identifier_extension = true;
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();

        let facts = Facts::read(&certificate.pem()).unwrap();

        assert_eq!(facts.names, ["a.test", "*.b.test"]);
        assert_eq!(
            facts.not_after.duration_since(facts.not_before).unwrap(),
            Duration::from_secs(90 * 86_400)
        );
        // The serial keeps the zero that its sign needs.
        assert!(facts.id.unwrap().to_string().ends_with(".AIdl"));
        assert!(Facts::read("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }
}
