//! The certificates of a cluster: one authority, and who shows what it signed.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// Signs the certificates of one cluster; its key is nowhere else than in the folder.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    folder: PathBuf,
}

/// A certificate and its key, as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// A new one, with `ca.crt` and `ca.key` in `folder`, and the key pair of service accounts beside them.
    pub fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).context("a folder for certificates")?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "garth-lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?.pem();
        fs::write(folder.join("ca.crt"), &certificate)?;
        fs::write(folder.join("ca.key"), key.serialize_pem())?;
        let accounts = KeyPair::generate()?;
        fs::write(folder.join("accounts.key"), accounts.serialize_pem())?;
        fs::write(folder.join("accounts.pub"), accounts.public_key_pem())?;
        Ok(Self { issuer: Issuer::new(params, key), certificate, folder })
    }

    /// The authority's own certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Of a file in its folder.
    pub fn path(&self, name: &str) -> String {
        path_text(&self.folder.join(name))
    }

    /// A user whom the API server knows by name and group.
    pub fn user(&self, name: &str, group: Option<&str>) -> Result<Identity> {
        self.sign(name, group, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A server of these names and addresses: `NAME.crt` and `NAME.key` in the folder.
    pub fn write_server(&self, name: &str, hosts: &[&str]) -> Result<()> {
        let host = |host: &&str| {
            let address = host.parse::<IpAddr>().map(SanType::IpAddress);
            address.or_else(|_| Ok::<_, rcgen::Error>(SanType::DnsName((*host).try_into()?)))
        };
        let hosts = hosts.iter().map(host).collect::<Result<_, _>>()?;
        self.write(name, &self.sign(name, None, hosts, ExtendedKeyUsagePurpose::ServerAuth)?)
    }

    /// `NAME.crt` and `NAME.key` in the folder.
    pub fn write(&self, name: &str, identity: &Identity) -> Result<()> {
        fs::write(self.folder.join(format!("{name}.crt")), &identity.certificate)?;
        fs::write(self.folder.join(format!("{name}.key")), &identity.key)?;
        Ok(())
    }

    fn sign(
        &self,
        name: &str,
        group: Option<&str>,
        hosts: Vec<SanType>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.subject_alt_names = hosts;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

/// Paths here are made of a cache's path and ASCII names.
pub fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
