//! A local certificate authority and server certificates, as PEM.

use std::{collections::BTreeSet, fs, io, path::Path, time::SystemTime};

use anyhow::ensure;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

/// Signs certificates that are valid for as long as `rcgen` allows by default:
/// for tests and demos on one machine only.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key.
pub struct ServerCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Authority {
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Tollgate local CA");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// The authority's own certificate, for `--cacert`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// `names` are DNS names or IP addresses.
    pub fn certify(&self, names: &[&str]) -> anyhow::Result<ServerCertificate> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("localhost", |name| name));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(ServerCertificate { certificate_pem, key_pem: key.serialize_pem() })
    }

    /// Signs a request in DER for exactly these names; the chain as PEM.
    pub(crate) fn sign(
        &self,
        request: &[u8],
        names: &BTreeSet<String>,
        from: SystemTime,
        to: SystemTime,
        serial: u64,
    ) -> anyhow::Result<String> {
        let mut request = CertificateSigningRequestParams::from_der(&request.to_vec().into())?;
        let asked: BTreeSet<String> = request
            .params
            .subject_alt_names
            .iter()
            .filter_map(|name| match name {
                SanType::DnsName(name) => Some(name.to_string()),
                _ => None,
            })
            .collect();
        ensure!(asked == *names, "asked for {asked:?} instead of {names:?}");
        request.params.not_before = from.into();
        request.params.not_after = to.into();
        request.params.serial_number = Some(serial.into());
        request.params.use_authority_key_identifier_extension = true;
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(format!("{}{}", request.signed_by(&self.issuer)?.pem(), self.pem))
    }
}

impl ServerCertificate {
    /// Writes `NAME.crt` and `NAME.key` into `directory`.
    pub fn write(&self, directory: &Path, name: &str) -> io::Result<()> {
        fs::write(directory.join(format!("{name}.crt")), &self.certificate_pem)?;
        fs::write(directory.join(format!("{name}.key")), &self.key_pem)
    }
}
