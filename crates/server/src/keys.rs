//! API keys: what callers over the network show. Kept are digests: whoever reads the store can use none of them.
//!
//! A key is `garth_ID_SECRET`. The secret is 256 random bits, so one SHA-256 is enough: there is nothing to guess.

mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use garth_api::{CreateKey, CreatedKey, ErrorCode, Key, Role};
use garth_spec::ProjectName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex;

use crate::failure::Failure;

pub(crate) use store::KeyStore;

/// What all keys begin with, so that scanners for leaked secrets know one.
const PREFIX: &str = "garth_";

/// How old the copy that requests are checked by may be: so long a key that another gateway revoked is good.
const FRESH: Duration = Duration::from_secs(2);

/// The longest name of a key, in bytes.
const LONGEST_NAME: usize = 200;

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    key: Seen,
    /// SHA-256 of the secret, in hexadecimal.
    digest: String,
}

/// The same without what is secret. A type of its own, for `deny_unknown_fields` and `flatten` do not go together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    id: String,
    name: String,
    role: Role,
    projects: Vec<ProjectName>,
    created_at: Timestamp,
}

/// Who calls, and what that one may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) role: Role,
    /// With which projects; all when empty.
    pub(crate) projects: Vec<ProjectName>,
}

/// The keys of a daemon.
#[derive(Debug)]
pub(crate) struct Keys {
    store: KeyStore,
    copy: Mutex<Option<(Instant, Arc<Vec<Kept>>)>>,
}

impl Caller {
    /// Whoever may open the socket.
    pub(crate) fn anyone() -> Self {
        Self { role: Role::Admin, projects: Vec::new() }
    }

    /// Whether a project is any concern of the caller's.
    pub(crate) fn may_see(&self, project: &ProjectName) -> bool {
        self.projects.is_empty() || self.projects.contains(project)
    }

    /// An error unless the caller has this role.
    pub(crate) fn check_role(&self, least: Role) -> Result<(), Failure> {
        if self.role >= least {
            return Ok(());
        }
        let message = format!("this takes a key of the role {least}, and yours has the role {}", self.role);
        Err(Failure::new(ErrorCode::Forbidden, message))
    }

    /// An error unless the caller may use this project. What it may not see is not there.
    pub(crate) fn check_project(&self, project: &ProjectName) -> Result<(), Failure> {
        match self.may_see(project) {
            true => Ok(()),
            false => Err(Failure::new(ErrorCode::NotFound, format!("there is no project {project}"))),
        }
    }
}

impl Keys {
    pub(crate) fn new(store: KeyStore) -> Self {
        Self { store, copy: Mutex::default() }
    }

    /// Who shows this.
    pub(crate) async fn caller(&self, shown: &str) -> Result<Option<Caller>, Failure> {
        let Some((id, secret)) = shown.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')) else {
            return Ok(None);
        };
        let digest = digest(secret);
        let keys = self.copy().await?;
        let found =
            keys.iter().find(|kept| kept.key.id == id && bool::from(kept.digest.as_bytes().ct_eq(digest.as_bytes())));
        Ok(found.map(|kept| Caller { role: kept.key.role, projects: kept.key.projects.clone() }))
    }

    pub(crate) async fn list(&self) -> Result<Vec<Key>, Failure> {
        Ok(self.store.read().await?.into_iter().map(|kept| kept.key.into()).collect())
    }

    pub(crate) async fn create(&self, new: CreateKey) -> Result<CreatedKey, Failure> {
        if new.name.len() > LONGEST_NAME || new.name.contains(char::is_control) {
            let message = format!("a key's name is one line of {LONGEST_NAME} bytes at most");
            return Err(Failure::new(ErrorCode::InvalidRequest, message));
        }
        let (id, secret) = (random::<4>()?, random::<32>()?);
        let key = Seen {
            id: id.clone(),
            name: new.name,
            role: new.role,
            projects: new.projects,
            created_at: Timestamp::now(),
        };
        let kept = Kept { key: key.clone(), digest: digest(&secret) };
        self.change(|keys| {
            keys.push(kept.clone());
            Ok(())
        })
        .await?;
        Ok(CreatedKey { key: key.into(), secret: format!("{PREFIX}{id}_{secret}") })
    }

    /// From now on nobody gets in by it; elsewhere after [`FRESH`].
    pub(crate) async fn revoke(&self, id: &str) -> Result<(), Failure> {
        self.change(|keys| {
            let before = keys.len();
            keys.retain(|kept| kept.key.id != id);
            match keys.len() < before {
                true => Ok(()),
                false => Err(Failure::new(ErrorCode::NotFound, format!("there is no key {id}")).hint("garth key ls")),
            }
        })
        .await
    }

    async fn change(&self, change: impl Fn(&mut Vec<Kept>) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut copy = self.copy.lock().await;
        self.store.change(change).await?;
        *copy = None;
        Ok(())
    }

    async fn copy(&self) -> Result<Arc<Vec<Kept>>, Failure> {
        let mut copy = self.copy.lock().await;
        if let Some((since, keys)) = &*copy
            && since.elapsed() < FRESH
        {
            return Ok(Arc::clone(keys));
        }
        let keys = Arc::new(self.store.read().await?);
        *copy = Some((Instant::now(), Arc::clone(&keys)));
        Ok(keys)
    }
}

impl From<Seen> for Key {
    fn from(Seen { id, name, role, projects, created_at }: Seen) -> Self {
        Self { id, name, role, projects, created_at }
    }
}

fn digest(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random<const N: usize>() -> Result<String, Failure> {
    let mut bytes = [0; N];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| Failure::new(ErrorCode::Internal, "the kernel gives no random bytes").because(error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (tempfile::TempDir, Keys) {
        let dir = tempfile::tempdir().expect("dir");
        let keys = Keys::new(KeyStore::File(dir.path().join("keys.json")));
        (dir, keys)
    }

    #[tokio::test]
    async fn a_key_lets_in_until_it_is_revoked() {
        let (dir, keys) = keys();
        let new = CreateKey { name: "ci".to_owned(), role: Role::Viewer, projects: vec!["web".parse().expect("name")] };
        let created = keys.create(new).await.expect("created");
        let caller = keys.caller(&created.secret).await.expect("asked").expect("known");
        assert_eq!(caller.role, Role::Viewer);
        assert!(caller.may_see(&"web".parse().expect("name")) && !caller.may_see(&"db".parse().expect("name")));
        // Nothing that is kept lets in.
        let kept = std::fs::read_to_string(dir.path().join("keys.json")).expect("the file");
        let secret = created.secret.rsplit('_').next().expect("a secret");
        assert!(!kept.contains(secret), "{kept}");
        keys.revoke(&created.key.id).await.expect("revoked");
        assert_eq!(keys.caller(&created.secret).await.expect("asked"), None);
        assert!(keys.revoke(&created.key.id).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_key_does_not_let_in() {
        let (_dir, keys) = keys();
        let created = keys.create(CreateKey::default()).await.expect("created");
        let id = &created.key.id;
        let wrong = [
            String::new(),
            "garth_".to_owned(),
            format!("garth_{id}_"),
            format!("{}x", created.secret),
            created.secret[..created.secret.len() - 1].to_owned(),
            created.secret.to_uppercase(),
            format!("garth_{id}_{}", digest(created.secret.rsplit('_').next().expect("a secret"))),
        ];
        for shown in wrong {
            assert_eq!(keys.caller(&shown).await.expect("asked"), None, "{shown}");
        }
    }
}
