"""What can be learned from the feature vectors of windows, without running anything again.

::

    vectors -> moments -> pca -> colours       what differs most, as red, green and blue
                       -> correlation          which features follow x or y: an artefact, perhaps
            -> clusters                        k groups of windows that look alike
            -> similarity, neighbours          windows like this one
            -> latents                         one feature as a map

All of it goes over the vectors block by block: they may be larger than memory. Windows that are
not done, failed, or have a vector that is not finite take no part; results are NaN there.
"""
