//! The names that a manifest may use: component ids, variable names, store labels.

use anyhow::{Result, ensure};

/// A component id or the like: words of letters and digits joined by `-`, each starting with a letter and each either
/// all lower or all upper case.
pub fn check_kebab(id: &str) -> Result<()> {
    check_words(id, '-', false)
}

/// A variable name: as [`check_kebab`], but joined by `_` and lower case throughout.
pub fn check_lower_snake(id: &str) -> Result<()> {
    check_words(id, '_', true)
}

/// A store label: kebab or snake case.
pub fn check_label(label: &str) -> Result<()> {
    check_words(label, '-', false).or_else(|_| check_words(label, '_', false))
}

fn check_words(id: &str, delimiter: char, lower_only: bool) -> Result<()> {
    ensure!(!id.is_empty(), "a name must not be empty");
    for word in id.split(delimiter) {
        let Some(first) = word.chars().next() else {
            anyhow::bail!("{id:?}: the words between `{delimiter}` must not be empty");
        };
        ensure!(first.is_ascii_alphabetic(), "{id:?}: a word must start with an ASCII letter, not {first:?}");
        for character in word.chars() {
            ensure!(
                character.is_ascii_alphanumeric(),
                "{id:?}: {character:?} is not allowed in words joined by `{delimiter}`"
            );
            ensure!(
                character.is_ascii_digit() || character.is_ascii_uppercase() == first.is_ascii_uppercase(),
                "{id:?}: a word must be all lower or all upper case"
            );
        }
        ensure!(!lower_only || first.is_ascii_lowercase(), "{id:?}: must be lower case");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_ids_are_kebab_case() {
        for good in ["a", "llm-call-stream", "v2", "AN-id", "a1-b2"] {
            check_kebab(good).expect(good);
        }
        for bad in ["", "-a", "a-", "a--b", "a_b", "1a", "aB", "a.b", "ä"] {
            assert!(check_kebab(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variable_names_are_lower_snake_case() {
        for good in ["a", "database_host", "usd_per_credit", "a1_b2"] {
            check_lower_snake(good).expect(good);
        }
        for bad in ["", "A", "a-b", "a__b", "_a", "a_", "1a", "aB", "FOO_BAR"] {
            assert!(check_lower_snake(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn store_labels_may_be_kebab_or_snake_but_not_both() {
        check_label("default").unwrap();
        check_label("my-store").unwrap();
        check_label("my_store").unwrap();
        assert!(check_label("my-odd_store").is_err());
    }
}
