//! Why something is not (yet) so, in the words of the contract.

use lockstep_model::Reason;

/// The longest text that is kept of what a server says: rows of many servers must fit into one message.
pub const TEXT_BYTES_MAX: usize = 300;

/// A reason with its text. The reason is text, because a newer server may send one that is not known here (R18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The stable reason, such as `DISK_FULL`.
    pub reason: String,
    /// One sentence for a person.
    pub message: String,
    /// What a person can do about it.
    pub advice: String,
}

impl Cause {
    /// A cause that is known here, with the advice that belongs to the reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason: reason.as_str().to_owned(),
            message: message.into(),
            advice: reason.advice().to_owned(),
        }
    }

    /// A cause as another process said it, shortened to [`TEXT_BYTES_MAX`] a text.
    pub fn reported(reason: &str, message: &str, advice: &str) -> Self {
        Self { reason: shortened(reason), message: shortened(message), advice: shortened(advice) }
    }

    /// Whether it is `reason`.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == reason.as_str()
    }
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let cause = Cause::reported("DISK_FULL", &"ä".repeat(200), "");
        assert_eq!(cause.message, "ä".repeat(150));
        assert!(cause.is(Reason::DiskFull));
    }
}
