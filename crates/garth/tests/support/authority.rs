//! Certificates for servers under test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

/// Signs certificates; whoever believes it reads its file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub file: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = dir.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).expect("signed").pem()).expect("written");
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Puts a certificate for an address into the daemon's files, all at once, as Kubernetes does it.
    pub fn certify(&self, dir: &Path, address: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(address.parse().expect("an address"))];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").pem();
        for (name, text) in [("tls.crt", certificate), ("tls.key", key.serialize_pem())] {
            let draft = dir.join(format!("{name}.new"));
            std::fs::write(&draft, text).expect("written");
            std::fs::rename(&draft, dir.join(name)).expect("renamed");
        }
    }
}
