//! A local certificate authority and server certificates, as PEM.

use std::{fs, io, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
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
}

impl ServerCertificate {
    /// Writes `NAME.crt` and `NAME.key` into `directory`.
    pub fn write(&self, directory: &Path, name: &str) -> io::Result<()> {
        fs::write(directory.join(format!("{name}.crt")), &self.certificate_pem)?;
        fs::write(directory.join(format!("{name}.key")), &self.key_pem)
    }
}
