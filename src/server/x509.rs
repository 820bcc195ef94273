//! What a certificate says of itself, in text that may be logged and sent on.

use std::{
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    objects::{oid_registry, oid2abbrev},
    parse_x509_certificate,
    time::ASN1Time,
    x509::{AttributeTypeAndValue, X509Name},
};

use super::certificate::CertificateError;
use crate::proxy::ClientIdentity;

/// The end of a certificate's validity.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, CertificateError> {
    Ok(time(parse(certificate)?.validity().not_after))
}

/// Of a certificate that has been verified.
pub(super) fn identity(certificate: &CertificateDer<'_>) -> Result<ClientIdentity, CertificateError> {
    let parsed = parse(certificate)?;
    Ok(ClientIdentity {
        subject: distinguished_name(parsed.subject()),
        common_name: parsed.subject().iter_common_name().next().map(value),
        names: alternative_names(&parsed),
        serial: hex::encode(parsed.raw_serial()),
        sha256: hex::encode(Sha256::digest(certificate)),
        not_after: time(parsed.validity().not_after),
    })
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    let malformed = |error: &dyn std::fmt::Display| CertificateError::Malformed(error.to_string());
    parse_x509_certificate(certificate).map(|(_, parsed)| parsed).map_err(|error| malformed(&error))
}

/// Before 1970 there is no certificate; it counts as ended then.
fn time(time: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// RFC 4514: most specific first, and nothing in a value can pass for the start
/// of another attribute.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut sequence: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes = rdn.iter().map(|attribute| {
                let kind = attribute.attr_type();
                let kind =
                    oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_id_string(), str::to_owned);
                format!("{kind}={}", value(attribute))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    sequence.reverse();
    sequence.join(",")
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> String {
    match attribute.as_str() {
        Ok(text) => escaped(text),
        Err(_) => format!("#{}", hex::encode(attribute.as_slice())),
    }
}

/// Printable ASCII, escaped as in RFC 4514 section 2.4.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let edge = (at == 0 && matches!(byte, b' ' | b'#')) || (at + 1 == text.len() && byte == b' ');
        if edge || matches!(byte, b'"' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\') {
            out.push('\\');
            out.push(char::from(byte));
        } else if (b' '..=b'~').contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "\\{byte:02X}");
        }
    }
    out
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    // Given twice it is malformed, and the verifier has refused it.
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{}", escaped(name))),
        GeneralName::RFC822Name(name) => Some(format!("email:{}", escaped(name))),
        GeneralName::URI(name) => Some(format!("URI:{}", escaped(name))),
        GeneralName::IPAddress(octets) => Some(format!("IP:{}", address(octets)?)),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(text).collect()
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_pass_for_another_attribute() {
        assert_eq!(escaped("a,O=admin"), "a\\,O\\=admin");
        assert_eq!(escaped(" #x "), "\\ #x\\ ");
        assert_eq!(escaped("#x"), "\\#x");
        assert_eq!(escaped("é\n"), "\\C3\\A9\\0A");
    }

    #[test]
    fn an_identity_tells_who_it_is() {
        let mut params =
            rcgen::CertificateParams::new(vec!["a.test".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::OrganizationName, "Partners, Ltd");
        name.push(rcgen::DnType::CommonName, "robot");
        params.distinguished_name = name;
        params.serial_number = Some(vec![1, 2, 3].into());
        params.not_after = rcgen::date_time_ymd(2040, 1, 2);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();

        let identity = identity(made.der()).unwrap();

        assert_eq!(identity.subject, "CN=robot,O=Partners\\, Ltd");
        assert_eq!(identity.common_name.as_deref(), Some("robot"));
        assert_eq!(identity.names, ["DNS:a.test", "IP:10.0.0.1"]);
        assert_eq!(identity.serial, "010203");
        assert_eq!(identity.sha256, hex::encode(Sha256::digest(made.der())));
        assert_eq!(identity.not_after, SystemTime::UNIX_EPOCH + Duration::from_secs(2_209_075_200));
        assert_eq!(not_after(made.der()).unwrap(), identity.not_after);
    }
}
