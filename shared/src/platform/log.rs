//! The log: one line for each thing that somebody should know, on the component's standard error.

/// Writes one line, whatever it quotes: an end of a line in it would begin another one.
pub fn line(text: &str) {
    eprintln!("{}", text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " "));
}
