//! Virtual keys in plain text.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// A virtual key in plain text, as the caller sent it or LiteLLM generated it. `Debug` does not print it, and it is
/// erased from memory when it is dropped.
#[derive(Debug, Clone)]
pub struct VirtualKey(SecretString);

impl VirtualKey {
    /// Takes a key without checking it.
    pub fn new(key: String) -> Self {
        Self(key.into())
    }

    /// The key itself: for LiteLLM, and for the only response that shows it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The key's SHA-256, which is stored in place of the key.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.expose()).into()
    }

    /// The key's last four characters, by which people can tell keys apart.
    pub fn hint(&self) -> String {
        let skipped = self.expose().chars().count().saturating_sub(4);
        self.expose().chars().skip(skipped).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let key = VirtualKey::new("sk-secret-1234".into());
        assert!(!format!("{key:?}").contains("secret-1"));
        assert_eq!(key.hint(), "1234");
    }
}
