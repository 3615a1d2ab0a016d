"""The colours of Okabe & Ito (2008): told apart by colour-blind readers, and by lightness in grey."""

BLUE, ORANGE, GREEN, SKY, PURPLE, YELLOW = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#E69F00"
GREY = "#999999"
