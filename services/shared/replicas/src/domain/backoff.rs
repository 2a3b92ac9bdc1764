//! How long to wait before the next try.

use std::time::Duration;

use lockstep_model::clock::Entropy;

/// Doubles from a least to a most, with jitter, until it is told that a try succeeded.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins at `least`.
    pub const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, next: least }
    }

    /// The next wait, up to a quarter shorter or longer.
    pub fn wait(&mut self, entropy: &impl Entropy) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        entropy.jitter(wait)
    }

    /// A try succeeded.
    pub fn reset(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Middle;

    impl Entropy for Middle {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    #[test]
    fn waits_double_up_to_the_most_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        let waits: Vec<u128> = (0..4).map(|_| backoff.wait(&Middle).as_millis()).collect();
        assert_eq!(waits, [75, 150, 225, 225]);
        backoff.reset();
        assert_eq!(backoff.wait(&Middle).as_millis(), 75);
    }
}
