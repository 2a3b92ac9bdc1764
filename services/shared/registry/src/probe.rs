//! Whether the registry answers, asked again and again.

use std::time::Duration;

use crate::Registry;

/// How often the registry is asked.
const EVERY: Duration = Duration::from_secs(5);

/// Tells `answers` at once, and every 5 s, whether the registry answers. Never ends by itself.
pub async fn probe<R: Registry>(registry: R, answers: impl Fn(bool)) {
    loop {
        answers(registry.head().await.is_ok());
        tokio::time::sleep(EVERY).await;
    }
}
