//! Film: pictures that follow each other.

use std::path::Path;

use super::{Labelled, Parts, Picture};
use crate::{Error, Result};

/// The share of each film, at its end, that is kept for testing where none lie apart.
const TEST_SHARE: f64 = 0.25;

/// The frames of one film.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Film {
    /// Name of its folder.
    pub name: String,
    /// All of one size.
    pub frames: Vec<Picture>,
}

/// Films, parted for training and testing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Films {
    /// To learn from.
    pub train: Vec<Film>,
    /// To measure with.
    pub test: Vec<Film>,
}

/// Frames of a film at even distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clip {
    /// Which film.
    pub film: usize,
    /// Its first frame.
    pub first: usize,
    /// From one frame to the next.
    pub stride: usize,
}

impl Films {
    /// Reads a folder, or a tar archive (gzipped or not), with a folder of JPEG or PNG frames for each film, in the order of
    /// their names; such folders may lie in folders `train` and `test`. Where none do, the last quarter of every film is
    /// the test.
    ///
    /// # Errors
    /// [`Error::BadInput`], with the name of the file, if there are no frames, one cannot be read, or is of another size than those
    /// before it.
    pub fn read(path: &Path) -> Result<Self> {
        let Parts {
            classes,
            train,
            validation,
            mut test,
        } = Parts::read(path)?;
        if test.is_empty() {
            test = validation;
        }
        let mut train = films(&classes, train)?;
        let mut test = films(&classes, test)?;
        if test.is_empty() {
            for film in &mut train {
                let kept = film.frames.len() as f64 * (1.0 - TEST_SHARE);
                test.push(Film {
                    name: film.name.clone(),
                    frames: film.frames.split_off(kept.round() as usize),
                });
            }
        }
        match train.is_empty() {
            true => Err(Error::BadInput(format!(
                "{}: there are no frames to learn from (JPEG or PNG, in a folder for each film)",
                path.display()
            ))),
            false => Ok(Self { train, test }),
        }
    }
}

/// Frames by the film that they are labelled with.
fn films(names: &[String], frames: Labelled) -> Result<Vec<Film>> {
    let mut films: Vec<Film> = names
        .iter()
        .map(|name| Film {
            name: name.clone(),
            frames: Vec::new(),
        })
        .collect();
    for (frame, film) in frames.pictures.into_iter().zip(frames.labels) {
        let film = &mut films[film].frames;
        let size = |picture: &Picture| [picture.width, picture.height, picture.channels];
        if let Some(before) = film.last().filter(|before| size(before) != size(&frame)) {
            return Err(Error::BadInput(format!(
                "{} is {:?} (width, height, channels), and the frame before it {:?}",
                frame.name,
                size(&frame),
                size(before)
            )));
        }
        film.push(frame);
    }
    films.retain(|film| !film.frames.is_empty());
    Ok(films)
}

impl Clip {
    /// Every clip of so many frames, `stride` apart, that begins in a film.
    pub fn all(films: &[Film], frames: usize, stride: usize) -> Vec<Self> {
        let reach = frames.saturating_sub(1) * stride;
        let of = |(film, Film { frames, .. }): (usize, &Film)| {
            (0..frames.len().saturating_sub(reach)).map(move |first| Self {
                film,
                first,
                stride,
            })
        };
        films.iter().enumerate().flat_map(of).collect()
    }

    /// Its frame number `time`.
    pub fn frame<'a>(&self, films: &'a [Film], time: usize) -> &'a Picture {
        &films[self.film].frames[self.first + time * self.stride]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Luma};

    use super::super::folder::tests::Folder;
    use super::*;

    fn frame(side: u32, level: u8) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image::GrayImage::from_pixel(side, side, Luma([level]))
            .write_to(&mut bytes, ImageFormat::Png)
            .unwrap();
        bytes.into_inner()
    }

    fn levels(film: &Film) -> Vec<u8> {
        film.frames.iter().map(|frame| frame.samples[0]).collect()
    }

    #[test]
    fn the_end_of_every_film_is_the_test() {
        let folder = Folder::new("film");
        for time in 0..8 {
            folder.file(&format!("long/{time}.png"), &frame(2, time));
        }
        for time in 0..4 {
            folder.file(&format!("short/{time}.png"), &frame(3, 10 + time));
        }
        let films = Films::read(&folder.path).unwrap();
        let of = |films: &[Film]| -> Vec<(String, Vec<u8>)> {
            films.iter().map(|f| (f.name.clone(), levels(f))).collect()
        };
        let named = |long: &[u8], short: &[u8]| {
            vec![("long".into(), long.into()), ("short".into(), short.into())]
        };
        assert_eq!(of(&films.train), named(&[0, 1, 2, 3, 4, 5], &[10, 11, 12]));
        assert_eq!(of(&films.test), named(&[6, 7], &[13]));

        let clips = Clip::all(&films.train, 3, 2);
        let seen = clips
            .iter()
            .map(|clip| [0, 1, 2].map(|time| clip.frame(&films.train, time).samples[0]));
        assert_eq!(seen.collect::<Vec<_>>(), [[0, 2, 4], [1, 3, 5]]);
    }

    #[test]
    fn films_that_lie_apart_are_the_test_and_odd_frames_are_named() {
        let folder = Folder::new("film-parts");
        for (name, level) in [("train/a/0", 1), ("train/a/1", 2), ("test/b/0", 3)] {
            folder.file(&format!("{name}.png"), &frame(2, level));
        }
        let films = Films::read(&folder.path).unwrap();
        assert_eq!(
            (levels(&films.train[0]), films.train.len()),
            (vec![1, 2], 1)
        );
        assert_eq!((levels(&films.test[0]), films.test.len()), (vec![3], 1));
        folder.file("train/a/2.png", &frame(3, 4));
        let error = Films::read(&folder.path).unwrap_err().to_string();
        assert!(error.contains("train/a/2.png is [3, 3, 1]"), "{error}");

        let empty = Folder::new("film-none");
        let error = Films::read(&empty.path).unwrap_err().to_string();
        assert!(error.contains("no frames"), "{error}");
    }
}
