//! Which parts of the crate a source text names: every `crate::…`, `kata_pulse::…` and `super::…` path outside of
//! comments and literals, in imports and anywhere else.

/// A path to a part of the crate, a module right below its root.
#[derive(Debug, PartialEq, Eq)]
pub struct Reference {
    pub line: usize,
    pub part: String,
}

/// The parts that `source` names. `inside` is the module that the source is, from the root down; empty for the root.
pub fn references(source: &str, inside: &[&str]) -> Vec<Reference> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    // Modules written in the file itself: how deep in braces they were opened.
    let (mut braces, mut inner) = (0usize, Vec::new());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                inner.retain(|opened| *opened < braces);
            }
            "mod" if is(&tokens, at + 2, "{") => inner.push(braces),
            "crate" | "kata_pulse" if !is(&tokens, at.wrapping_sub(1), "::") && is(&tokens, at + 1, "::") => {
                parts_below(&tokens, at + 2, &mut found);
            }
            "super" if !is(&tokens, at.wrapping_sub(1), "::") => {
                let mut ups = 1;
                let mut next = at + 1;
                while is(&tokens, next, "::") && is(&tokens, next + 1, "super") {
                    ups += 1;
                    next += 2;
                }
                // Up to the root and down again; further up is no valid path.
                if ups == inside.len() + inner.len() && is(&tokens, next, "::") {
                    parts_below(&tokens, next + 1, &mut found);
                }
                at = next - 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The names that follow `crate::`: one, or the first of each path in braces.
fn parts_below(tokens: &[Token], at: usize, found: &mut Vec<Reference>) {
    let mut note = |token: &Token| found.push(Reference { line: token.line, part: token.text.clone() });
    if !is(tokens, at, "{") {
        return tokens.get(at).into_iter().for_each(note);
    }
    let mut depth = 0usize;
    let mut begins = true;
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return,
            "}" => depth -= 1,
            "," => begins = depth == 1,
            _ if begins && depth == 1 => {
                note(token);
                begins = false;
            }
            _ => {}
        }
    }
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

struct Token {
    line: usize,
    text: String,
}

/// Words and signs, `::` as one sign; comments and literals left out.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let line = 1 + source[..source.len() - rest.len()].matches('\n').count();
        let length = skipped(rest).unwrap_or_else(|| {
            let word = rest.len() - rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len();
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            tokens.push(Token { line, text: rest[..length].to_owned() });
            length
        });
        rest = &rest[length..];
    }
    tokens
}

/// How long the blank, comment, literal or lifetime is that the text begins with; `None` if with none.
fn skipped(text: &str) -> Option<usize> {
    if text.starts_with(char::is_whitespace) {
        return Some(text.len() - text.trim_start().len());
    }
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix('r'));
    if let Some(after) = raw {
        let hashes = after.len() - after.trim_start_matches('#').len();
        if after[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = text.len() - after.len() + hashes + 1;
            return Some(text[begin..].find(&end).map_or(text.len(), |at| begin + at + end.len()));
        }
    }
    if text.starts_with('"') || text.starts_with("b\"") {
        let begin = text.find('"').unwrap_or_default() + 1;
        return Some(begin + literal(&text[begin..], b'"'));
    }
    if let Some(after) = text.strip_prefix('\'') {
        // A quote, one character and a quote, or an escape: a character. Anything else is a lifetime.
        let mut characters = after.chars();
        let (one, two) = (characters.next(), characters.next());
        return Some(if one == Some('\\') || two == Some('\'') { 1 + literal(after, b'\'') } else { 1 });
    }
    None
}

/// The length of a literal up to and with its closing quote.
fn literal(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let closes = byte == quote && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.map_or(text.len(), |end| end + 1)
}

/// The length of a block comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}
