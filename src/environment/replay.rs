//! Recorded episodes: what was seen, and what was done between. A file of them is a safetensors file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::policy::{Explorer, Policy};
use super::{Environment, canvas};
use crate::checkpoint::{Dtype, Header, TensorData, safetensors};
use crate::input::ImageView;
use crate::world::ActionScale;
use crate::{Error, Result};

/// Key of the sizes in the metadata of a file.
const REPLAY: &str = "webjepa.replay";
/// The version of the format that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// Of pictures, and of the numbers of actions in an episode.
const BYTES: Dtype = Dtype::Other {
    name: "U8",
    bits: 8,
};
const COUNTS: Dtype = Dtype::Other {
    name: "U32",
    bits: 32,
};

/// How an episode ended is kept as bits.
const TERMINATED: u8 = 1;
const TRUNCATED: u8 = 2;

/// An episode: pictures, and the action between each and the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Episode {
    /// `[actions + 1, side, side, 3]`.
    pub frames: Vec<u8>,
    /// `[actions, action]`, as the environment takes them.
    pub actions: Vec<f32>,
    /// `[actions + 1, state]`: the state in each picture. Empty where the environment tells none.
    pub states: Vec<f32>,
    /// After each action. Empty where they were not recorded.
    pub rewards: Vec<f32>,
    /// Whether it was terminated, and whether truncated; none where that was not recorded.
    pub end: Option<[bool; 2]>,
}

/// Episodes of one environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    side: usize,
    action: usize,
    episodes: Vec<Episode>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    format: u32,
    side: usize,
    action: usize,
}

impl Replay {
    /// Of pictures of `side × side` pixels, and actions of `action` numbers; without episodes.
    ///
    /// # Errors
    /// [`Error::BadInput`] for sizes of 0 and for pictures larger than environments draw them.
    pub fn new(side: usize, action: usize) -> Result<Self> {
        if !(1..=canvas::MAX_SIDE).contains(&side) || action == 0 {
            return Err(Error::BadInput(format!(
                "recordings have pictures of 1 to {} pixels on a side and actions of one number or more, not {side} and {action}",
                canvas::MAX_SIDE
            )));
        }
        Ok(Self {
            side,
            action,
            episodes: Vec::new(),
        })
    }

    /// Pixels on a side of a picture.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Numbers of an action.
    pub fn action_size(&self) -> usize {
        self.action
    }

    /// The episodes, the first one first.
    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// Bytes of a picture.
    fn frame(&self) -> usize {
        3 * self.side * self.side
    }

    /// Numbers of a state; 0 where there is none.
    pub fn state_size(&self) -> usize {
        let first = self.episodes.first();
        first.map_or(0, |e| e.states.len() / (e.actions.len() / self.action + 1))
    }

    /// Adds an episode.
    ///
    /// # Errors
    /// [`Error::BadInput`] for pictures and actions of other sizes, another number of pictures than one more than there are actions, an
    /// episode without actions, and infinite ones; for states, rewards or an end that others have and this one has not, or of other sizes, and
    /// states that are no numbers. NaN is an action that is not known.
    pub fn push(&mut self, episode: Episode) -> Result<()> {
        let Episode {
            frames, actions, ..
        } = &episode;
        let steps = actions.len() / self.action;
        let fits = actions.len().is_multiple_of(self.action) && steps > 0;
        if !fits || frames.len() != (steps + 1) * self.frame() {
            return Err(Error::BadInput(format!(
                "an episode has one picture of {} bytes more than it has actions of {} numbers, not {} bytes and {} numbers",
                self.frame(),
                self.action,
                frames.len(),
                actions.len()
            )));
        }
        if let Some(at) = actions.iter().position(|v| v.is_infinite()) {
            return Err(Error::BadInput(format!(
                "action {} of an episode has an infinite number",
                at / self.action
            )));
        }
        let state = match self.episodes.is_empty() {
            true => episode.states.len() / (steps + 1),
            false => self.state_size(),
        };
        let alike = self.episodes.first().is_none_or(|first| {
            first.rewards.is_empty() == episode.rewards.is_empty()
                && first.end.is_some() == episode.end.is_some()
        });
        let rewards = episode.rewards.len();
        if episode.states.len() != (steps + 1) * state || ![0, steps].contains(&rewards) || !alike {
            return Err(Error::BadInput(format!(
                "an episode of {steps} actions has a state in each picture, a reward after each action and an end, of the sizes that those \
                 before it have, or as they has none; not {} numbers of states and {rewards} rewards",
                episode.states.len()
            )));
        }
        if episode.states.iter().any(|v| !v.is_finite()) {
            return Err(Error::BadInput(
                "a state of an episode has a number that is not finite".into(),
            ));
        }
        self.episodes.push(episode);
        Ok(())
    }

    /// How all actions are scaled.
    ///
    /// # Errors
    /// As [`ActionScale::of`].
    pub fn scale(&self) -> Result<ActionScale> {
        let all: Vec<f32> = self
            .episodes
            .iter()
            .flat_map(|e| &e.actions)
            .copied()
            .collect();
        ActionScale::of(&all, self.action)
    }

    /// All windows of `history` + 1 frames, with `skip` actions between two of them, whose blocks they are; one begins at each frame that
    /// has enough of them after it. Blocks are scaled by `scale`.
    ///
    /// # Errors
    /// [`Error::BadInput`] for sizes of 0, where no episode is long enough, and for a scale of other actions.
    pub fn windows(&self, history: usize, skip: usize, scale: &ActionScale) -> Result<Windows<'_>> {
        let length = history.saturating_mul(skip);
        if length == 0 {
            return Err(Error::BadInput(
                "a window has one block at least, of one action at least".into(),
            ));
        }
        let (mut starts, mut blocks) = (Vec::new(), Vec::new());
        for (number, episode) in self.episodes.iter().enumerate() {
            let steps = episode.actions.len() / self.action;
            starts.extend((length..=steps).map(|end| (number, end - length)));
            blocks.push(scale.scaled(&episode.actions)?);
        }
        if starts.is_empty() {
            return Err(Error::BadInput(format!(
                "no episode has the {length} actions of a window: record longer ones, or lower the history or the skip"
            )));
        }
        Ok(Windows {
            replay: self,
            starts,
            blocks,
            history,
            skip,
        })
    }

    /// The recordings as a file.
    ///
    /// # Errors
    /// [`Error::BadInput`] where there is no episode; [`Error::Internal`] when it cannot be written.
    pub fn save(&self) -> Result<Vec<u8>> {
        if self.episodes.is_empty() {
            return Err(Error::BadInput("there is no episode to save".into()));
        }
        let lengths: Vec<usize> = self
            .episodes
            .iter()
            .map(|e| e.actions.len() / self.action)
            .collect();
        let steps: usize = lengths.iter().sum();
        let episodes = self.episodes.len();
        let frames: Vec<u8> = self
            .episodes
            .iter()
            .flat_map(|e| &e.frames)
            .copied()
            .collect();
        let actions = self.episodes.iter().flat_map(|e| &e.actions);
        let actions: Vec<u8> = actions.flat_map(|v| v.to_le_bytes()).collect();
        let counts: Vec<u8> = lengths
            .iter()
            .flat_map(|&n| (n as u32).to_le_bytes())
            .collect();
        let sizes = Sizes {
            format: FORMAT,
            side: self.side,
            action: self.action,
        };
        let internal = |e: &dyn std::fmt::Display| {
            Error::Internal(format!("the recordings cannot be written: {e}"))
        };
        let sizes = serde_json::to_string(&sizes).map_err(|e| internal(&e))?;
        let bytes_of = |of: fn(&Episode) -> &Vec<f32>| -> Vec<u8> {
            let values = self.episodes.iter().flat_map(of);
            values.flat_map(|v| v.to_le_bytes()).collect()
        };
        let (states, rewards) = (bytes_of(|e| &e.states), bytes_of(|e| &e.rewards));
        let bits = |[terminated, truncated]: [bool; 2]| {
            u8::from(terminated) * TERMINATED + u8::from(truncated) * TRUNCATED
        };
        let ends: Vec<u8> = self
            .episodes
            .iter()
            .filter_map(|e| e.end.map(bits))
            .collect();
        let told = [steps + episodes, self.state_size()];
        let (done, each, step) = ([steps, self.action], [episodes], [steps]);
        let seen = [steps + episodes, self.side, self.side, 3];
        let tensor = |name, dtype, shape, data| TensorData {
            name,
            dtype,
            shape,
            data,
        };
        let mut tensors = vec![
            tensor("actions", Dtype::F32, &done[..], &actions[..]),
            tensor("lengths", COUNTS, &each, &counts),
            tensor("frames", BYTES, &seen, &frames),
        ];
        // Readers of the format that know nothing of these find the others.
        let more = [
            tensor("states", Dtype::F32, &told[..], &states[..]),
            tensor("rewards", Dtype::F32, &step, &rewards),
            tensor("ends", BYTES, &each, &ends),
        ];
        tensors.extend(more.into_iter().filter(|t| !t.data.is_empty()));
        let mut file = Vec::new();
        safetensors::write(
            &mut file,
            &tensors,
            &BTreeMap::from([(REPLAY.to_owned(), sizes)]),
        )
        .map_err(|e| internal(&e))?;
        Ok(file)
    }

    /// Recordings as [`save`](Self::save) wrote them.
    ///
    /// # Errors
    /// [`Error::BadCheckpoint`] for other bytes; [`Error::Unsupported`] for another version of the format.
    pub fn load(file: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::BadCheckpoint(format!("these are no recordings: {why}"));
        let header = Header::of(file)?;
        let sizes = header.metadata.get(REPLAY);
        let sizes = sizes.ok_or_else(|| bad(format!("the file says nothing of {REPLAY}")))?;
        let Sizes {
            format,
            side,
            action,
        } = serde_json::from_str(sizes)
            .map_err(|e| bad(format!("their sizes cannot be read: {e}")))?;
        if format != FORMAT {
            return Err(Error::Unsupported(format!(
                "the recordings were saved in format {format}, and this version reads {FORMAT}"
            )));
        }
        let mut replay = Self::new(side, action).map_err(|e| bad(e.to_string()))?;
        let tensor = |name: &str, dtype: Dtype| {
            let found = header
                .tensors
                .iter()
                .find(|t| t.name == name && t.dtype == dtype)?;
            let place = |at: u64| (header.data_start + at) as usize;
            Some(&file[place(found.begin)..place(found.end)])
        };
        let there = |name: &str, dtype: Dtype| {
            tensor(name, dtype).ok_or_else(|| bad(format!("there is no tensor {name}")))
        };
        let words = |bytes: &[u8]| -> Vec<[u8; 4]> { bytes.as_chunks().0.to_vec() };
        let numbers = |bytes: &[u8]| words(bytes).into_iter().map(f32::from_le_bytes);
        let mut actions = numbers(there("actions", Dtype::F32)?);
        let mut frames = there("frames", BYTES)?;
        let lengths = words(there("lengths", COUNTS)?);
        let told = tensor("states", Dtype::F32).unwrap_or_default();
        let state = told.len() / 4 / (frames.len() / replay.frame()).max(1);
        let mut told = numbers(told);
        let rewards = tensor("rewards", Dtype::F32);
        let rewarded = rewards.is_some();
        let mut rewards = numbers(rewards.unwrap_or_default());
        let ends = tensor("ends", BYTES);
        if ends.is_some_and(|ends| ends.len() != lengths.len()) {
            return Err(bad("there is not an end for each episode".into()));
        }
        for (number, count) in lengths.into_iter().enumerate() {
            let steps = u32::from_le_bytes(count) as usize;
            // What hostile lengths ask for is not there, and not allocated.
            let of_actions = steps.saturating_mul(action).min(actions.len());
            let of_frames = steps.saturating_add(1).saturating_mul(replay.frame());
            let (own, rest) = frames
                .split_at_checked(of_frames)
                .ok_or_else(|| bad("an episode is longer than the pictures".into()))?;
            frames = rest;
            let bits = ends.map(|ends| ends[number]);
            let of_rewards = if rewarded { steps } else { 0 };
            let episode = Episode {
                frames: own.to_vec(),
                actions: actions.by_ref().take(of_actions).collect(),
                states: told
                    .by_ref()
                    .take((steps + 1).saturating_mul(state))
                    .collect(),
                rewards: rewards.by_ref().take(of_rewards).collect(),
                end: bits.map(|bits| [TERMINATED, TRUNCATED].map(|bit| bits & bit != 0)),
            };
            replay.push(episode).map_err(|e| bad(e.to_string()))?;
        }
        let left = actions.len() + told.len() + rewards.len() + frames.len();
        if replay.episodes.is_empty() || left > 0 {
            return Err(bad(
                "they are without episodes, or there is more than their lengths say".into(),
            ));
        }
        Ok(replay)
    }
}

/// Windows of recordings: what a world model is trained on.
#[derive(Clone, Debug)]
pub struct Windows<'a> {
    replay: &'a Replay,
    /// Episode and first frame of each.
    starts: Vec<(usize, usize)>,
    /// The actions of each episode as models take them.
    blocks: Vec<Vec<f32>>,
    history: usize,
    skip: usize,
}

impl<'a> Windows<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Never: recordings without windows are refused.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The pictures of a window, `history` + 1.
    ///
    /// # Panics
    /// When there are not so many windows.
    pub fn frames(&self, window: usize) -> impl Iterator<Item = ImageView<'a>> {
        let (replay, skip) = (self.replay, self.skip);
        let (episode, first) = self.starts[window];
        let (side, bytes) = (replay.side, replay.frame());
        (0..=self.history).map(move |i| {
            let at = (first + i * skip) * bytes;
            let frame = &replay.episodes[episode].frames[at..at + bytes];
            ImageView::from_u8(frame, side, side, 3)
        })
    }

    /// The action blocks between them, `[history, skip · action]`.
    ///
    /// # Panics
    /// When there are not so many windows.
    pub fn actions(&self, window: usize) -> &[f32] {
        let (episode, first) = self.starts[window];
        let length = self.history * self.skip * self.replay.action;
        &self.blocks[episode][first * self.replay.action..][..length]
    }
}

/// Records `episodes` of `steps` actions each, as `policy` explores. The environment is reset with an own seed for each episode, which
/// `seed` and its number decide; that a goal is reached does not end it.
///
/// # Errors
/// [`Error::BadInput`] for episodes without steps and pictures that cannot be drawn, and what the environment fails with.
pub fn collect(
    environment: &mut impl Environment,
    policy: Policy,
    [episodes, steps]: [usize; 2],
    side: usize,
    seed: u64,
) -> Result<Replay> {
    let size = environment.action_size();
    let mut replay = Replay::new(side, size)?;
    if episodes == 0 || steps == 0 {
        return Err(Error::BadInput(
            "record one episode at least, of one action at least".into(),
        ));
    }
    for number in 0..episodes as u64 {
        // Seeds from 2³² on are those of recordings; episodes that models are tried in have seeds below.
        environment.reset((seed << 32).wrapping_add((1 << 32) + number));
        let mut explorer = Explorer::new(policy, size, seed, number);
        let mut episode = Episode {
            frames: environment.observe(side)?,
            actions: Vec::with_capacity(steps * size),
            ..Episode::default()
        };
        for _ in 0..steps {
            let action = explorer.act();
            environment.step(action)?;
            episode.actions.extend(action.iter().map(|&v| v as f32));
            episode.frames.extend(environment.observe(side)?);
        }
        replay.push(episode)?;
    }
    Ok(replay)
}

#[cfg(test)]
mod tests {
    use super::super::{Repeated, TwoRooms};
    use super::*;

    const SIDE: usize = 8;

    fn recorded(seed: u64) -> Replay {
        let mut rooms = Repeated::new(TwoRooms::default(), 5).unwrap();
        collect(&mut rooms, Policy::Held(3), [3, 7], SIDE, seed).unwrap()
    }

    #[test]
    fn recordings_are_what_was_seen_and_done() {
        let replay = recorded(4);
        assert_eq!(replay, recorded(4));
        assert_ne!(replay, recorded(5));
        assert_eq!(replay.episodes().len(), 3);
        // Played again by hand.
        let mut rooms = TwoRooms::default();
        rooms.reset((5 << 32) + 2);
        let Episode {
            frames, actions, ..
        } = &replay.episodes()[2];
        let frames = frames.chunks_exact(3 * SIDE * SIDE);
        for (i, frame) in frames.enumerate() {
            assert_eq!(rooms.observe(SIDE).unwrap(), frame, "{i}");
            if let Some(action) = actions.get(2 * i..2 * i + 2) {
                let action: Vec<f64> = action.iter().map(|&v| v.into()).collect();
                for _ in 0..5 {
                    rooms.step(&action).unwrap();
                }
            }
        }
    }

    #[test]
    fn windows_skip_frames_and_join_actions() {
        let mut replay = Replay::new(1, 1).unwrap();
        let episode = |first: u8, steps: u8| Episode {
            frames: (first..=first + steps).flat_map(|v| [v; 3]).collect(),
            actions: (first..first + steps).map(f32::from).collect(),
            ..Episode::default()
        };
        replay.push(episode(0, 5)).unwrap();
        replay.push(episode(10, 3)).unwrap();
        replay.push(episode(20, 4)).unwrap();
        let scale = ActionScale::new(vec![1.0], vec![2.0]).unwrap();
        let windows = replay.windows(2, 2, &scale).unwrap();
        let seen = |window| -> Vec<u8> {
            let frames = windows.frames(window);
            frames
                .map(|view| match view.pixels {
                    crate::input::Pixels::U8(samples) => samples[0],
                    crate::input::Pixels::F32(_) => unreachable!("recordings are of bytes"),
                })
                .collect()
        };
        assert_eq!(windows.len(), 3);
        assert_eq!(
            [seen(0), seen(1), seen(2)],
            [[0, 2, 4], [1, 3, 5], [20, 22, 24]]
        );
        // (a − 1) / 2 of actions 1 to 4.
        assert_eq!(windows.actions(1), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(replay.windows(5, 1, &scale).unwrap().len(), 1);
        for (history, skip) in [(0, 1), (1, 0), (3, 2), (usize::MAX, 2)] {
            let error = replay.windows(history, skip, &scale).unwrap_err();
            assert_eq!(error.code(), "bad-input");
        }
        let other = ActionScale::new(vec![0.0; 2], vec![1.0; 2]).unwrap();
        assert_eq!(
            replay.windows(1, 1, &other).unwrap_err().code(),
            "bad-input"
        );
    }

    #[test]
    fn a_file_is_the_recordings_and_other_bytes_are_refused() {
        let replay = recorded(1);
        let file = replay.save().unwrap();
        assert_eq!(Replay::load(&file).unwrap(), replay);
        let code = |bytes: &[u8]| Replay::load(bytes).unwrap_err().code();
        for end in [0, 7, 8, 100, file.len() - 1] {
            assert_eq!(code(&file[..end]), "bad-checkpoint", "{end}");
        }
        assert_eq!(code(&[&file[..], &[0]].concat()), "bad-checkpoint");
        // Lengths that are longer, shorter and absurd: they follow the actions.
        let header = Header::of(&file).unwrap();
        let lengths = header.tensors.iter().find(|t| t.name == "lengths").unwrap();
        let at = (header.data_start + lengths.begin) as usize;
        for length in [0, 1, 6, 8, u32::MAX] {
            let mut changed = file.clone();
            changed[at..at + 4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(code(&changed), "bad-checkpoint", "{length}");
        }
        // Sizes that say something else, in as many characters.
        let text = |from: &str, to: &str| {
            let at = file.windows(from.len()).position(|w| w == from.as_bytes());
            let mut changed = file.clone();
            changed[at.unwrap()..][..to.len()].copy_from_slice(to.as_bytes());
            code(&changed)
        };
        assert_eq!(text(r#"side\":8"#, r#"side\":7"#), "bad-checkpoint");
        assert_eq!(text(r#"action\":2"#, r#"action\":0"#), "bad-checkpoint");
        assert_eq!(text(r#"action\":2"#, r#"action\":9"#), "bad-checkpoint");
        assert_eq!(text(r#"format\":1"#, r#"format\":2"#), "unsupported");
        assert_eq!(text("webjepa.replay", "webjepa.recipe"), "bad-checkpoint");
        assert_eq!(
            Replay::new(8, 2).unwrap().save().unwrap_err().code(),
            "bad-input"
        );
    }

    #[test]
    fn states_rewards_and_ends_are_kept() {
        let mut replay = Replay::new(1, 1).unwrap();
        for (steps, end) in [(2, [false, true]), (1, [true, false])] {
            let numbers = |count: usize| (0..count).map(|i| i as f32 + 0.5).collect();
            let episode = Episode {
                frames: vec![7; 3 * (steps + 1)],
                actions: numbers(steps),
                states: numbers(2 * (steps + 1)),
                rewards: numbers(steps),
                end: Some(end),
            };
            replay.push(episode).unwrap();
        }
        assert_eq!(replay.state_size(), 2);
        let file = replay.save().unwrap();
        assert_eq!(Replay::load(&file).unwrap(), replay);
        let from = br#""states""#;
        let at = file.windows(from.len()).position(|w| w == from).unwrap();
        let mut changed = file.clone();
        changed[at + 1] = b'z';
        // Without the name there are none.
        assert_eq!(Replay::load(&changed).unwrap().state_size(), 0);
    }

    #[test]
    fn episodes_that_do_not_fit_are_refused() {
        let mut replay = Replay::new(1, 2).unwrap();
        for (frames, actions) in [
            (3, vec![]),
            (6, vec![0.0]),
            (6, vec![0.0; 4]),
            (9, vec![0.0; 2]),
            (6, vec![0.0, f32::INFINITY]),
        ] {
            let frames = vec![0; frames];
            let episode = Episode {
                frames,
                actions,
                ..Episode::default()
            };
            let error = replay.push(episode).unwrap_err();
            assert_eq!(error.code(), "bad-input");
        }
        let unknown = Episode {
            frames: vec![0; 6],
            actions: vec![f32::NAN; 2],
            ..Episode::default()
        };
        assert_eq!(replay.push(unknown.clone()), Ok(()));
        for wrong in [
            Episode {
                states: vec![0.0; 2],
                ..unknown.clone()
            },
            Episode {
                rewards: vec![0.0],
                ..unknown.clone()
            },
            Episode {
                end: Some([true, false]),
                ..unknown.clone()
            },
        ] {
            // None before it has any.
            assert_eq!(replay.push(wrong).unwrap_err().code(), "bad-input");
        }
        let mut told = Replay::new(1, 2).unwrap();
        for (states, rewards) in [
            (vec![0.0; 3], vec![]),
            (vec![0.0, f32::NAN], vec![]),
            (vec![], vec![0.0; 2]),
        ] {
            let wrong = Episode {
                states,
                rewards,
                ..unknown.clone()
            };
            assert_eq!(told.push(wrong).unwrap_err().code(), "bad-input");
        }
        assert_eq!(Replay::new(0, 2).unwrap_err().code(), "bad-input");
        assert_eq!(Replay::new(1, 0).unwrap_err().code(), "bad-input");
    }
}
